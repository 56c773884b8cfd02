"""A folder belongs to its inputs: changed images, changed labels, checkpoints of other inputs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from potstill import artifacts, progress
from potstill.config import Config
from potstill.errors import RunError
from potstill.stages.images_record import read_labelled
from potstill.stages.run_folder import IMAGES
from potstill.stages.stage import stage
from potstill.training import checkpoint
from tests.faults.damage import DAMAGES, write_photos

CPU = torch.device("cpu")
DATA = {
    "source": "x",
    "fingerprint": "0",
    "classes": ["a"],
    "splits": {"train": 1, "validation": 1, "test": 1},
    "counts": {"train": [1], "validation": [1], "test": [1]},
    "image": {"channels": 1, "height": 8, "width": 8},
}


class Settings(Config):
    data: str = ""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_photos(tmp_path / "photos", 8)


def run(photos: Path, folder: Path, *, stop: bool = False) -> str:
    """Run a stage that reads the images and returns their fingerprint; `stop` interrupts it after its first result."""

    def work(journal: object) -> dict:
        manifest = read_labelled(str(photos))
        artifacts.stage(folder / "part", {"data": manifest.fingerprint}, lambda: {})
        if stop:
            raise KeyboardInterrupt
        return {"data": DATA | {"fingerprint": manifest.fingerprint}, "models": {}}

    command = f"potstill prune x --out {folder}"
    return stage("prune", Settings(data=str(photos)), folder, work, name="x", command=command)["data"]["fingerprint"]


def change(photos: Path) -> None:
    shutil.copyfile(photos / "cat" / "1.png", photos / "cat" / "3.png")


def relabel(photos: Path) -> None:
    shutil.move(photos / "cat" / "1.png", photos / "dog" / "1.png")


CHANGES = {
    "changed": (change, "1 image changed: cat/3.png."),
    "relabelled": (relabel, "1 image new: dog/1.png. 1 image gone: cat/1.png."),
    "removed": (lambda photos: (photos / "dog" / "0.png").unlink(), "1 image gone: dog/0.png."),
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("stop", [False, True], ids=["finished", "interrupted"])
def test_changed_images_are_named_and_not_taken_for_the_old_ones(photos: Path, tmp_path: Path, kind, stop) -> None:
    folder, (work, sentence) = tmp_path / "run", CHANGES[kind]
    if stop:
        with pytest.raises(KeyboardInterrupt):
            run(photos, folder, stop=True)
    else:
        run(photos, folder)
    work(photos)
    with pytest.raises(RunError) as caught:
        run(photos, folder)
    assert sentence in str(caught.value) and f"potstill prune x --out {folder}-2" in str(caught.value)
    assert ("its result is that of the old images" in str(caught.value)) == (not stop)
    assert run(photos, tmp_path / "run-2") != json.loads((folder / IMAGES).read_text())["reads"][0]["fingerprint"]


def test_a_finished_run_is_returned_while_its_images_are_the_same_or_gone(photos: Path, tmp_path: Path) -> None:
    first = run(photos, tmp_path / "run")
    assert run(photos, tmp_path / "run") == first and not progress.display().notes
    photos.rename(tmp_path / "elsewhere")
    assert run(photos, tmp_path / "run") == first
    assert "cannot be read any more" in progress.display().notes[0]


def test_a_start_without_a_result_leaves_the_folder_free_for_other_images(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / IMAGES).write_text(
        json.dumps(artifacts.sealed({"reads": [{"reader": "images", "path": str(photos), "fingerprint": "old"}]}))
    )
    run(photos, folder)
    assert json.loads((folder / IMAGES).read_text())["reads"][0]["fingerprint"] != "old"


def saved(folder: Path, inputs: dict) -> Path:
    """Write a checkpoint within a stage of these inputs that is interrupted."""
    file = folder / artifacts.CHECKPOINT

    def work() -> dict:
        checkpoint.save(file, {"model": {"w": torch.arange(64.0)}}, {"step": 3})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifacts.stage(folder, inputs, work)
    return file


def loaded(folder: Path, inputs: dict) -> checkpoint.State | None:
    found = []
    file = folder / artifacts.CHECKPOINT
    artifacts.stage(folder, inputs, lambda: found.append(checkpoint.load(file, CPU)) or {})
    return found[0]


def test_a_checkpoint_is_resumed_with_its_inputs_only(tmp_path: Path) -> None:
    saved(tmp_path / "a", {"data": "old", "seed": 1})
    with pytest.raises(RunError, match="checkpoint of a training with another data, so"):
        loaded(tmp_path / "a", {"data": "new", "seed": 1})
    state = loaded(tmp_path / "a", {"seed": 1, "data": "old"})
    assert state is not None and state.facts == {"step": 3} and state.tensors["model"]["w"].equal(torch.arange(64.0))


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_is_set_aside_and_the_training_starts_again(tmp_path: Path, damage) -> None:
    file = saved(tmp_path, {"data": "x"})
    damage(file)
    assert loaded(tmp_path, {"data": "x"}) is None
    assert (tmp_path / f"{artifacts.CHECKPOINT}.damaged").is_file()
    assert "checkpoint.safetensors is truncated or has a wrong checksum" in progress.display().notes[0]


def test_every_bit_of_a_checkpoint_counts(tmp_path: Path) -> None:
    file = saved(tmp_path / "a", {})
    whole = file.read_bytes()
    for position in range(8, len(whole), 7):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        read = checkpoint._read(file)
        assert read is None or read[0]["model/w"].equal(torch.arange(64.0))
