"""Damage on disk is noticed, and the same command makes the damaged part again, and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import potstill
from potstill import artifacts, progress
from potstill.errors import RunError
from potstill.stages.run_folder import Journal
from tests.faults.damage import DAMAGES, distilled, flip, results, truncate, write_photos, zeros


def made(folder: Path, calls: list[str]) -> None:
    """Two stages, each with a file."""
    for name in ("one", "two"):

        def work(name: str = name) -> dict:
            calls.append(name)
            artifacts.write_text(folder / name / "deep" / "file.txt", f"the content of {name}")
            return {"figure": 7}

        assert artifacts.stage(folder / name, {"seed": 1}, work)["figure"] == 7


@pytest.mark.parametrize("damage", [*DAMAGES.values(), Path.unlink], ids=[*DAMAGES, "removal"])
@pytest.mark.parametrize("victim", ["deep/file.txt", artifacts.MANIFEST])
def test_a_damaged_stage_is_made_again_and_no_other(tmp_path: Path, damage, victim: str) -> None:
    calls: list[str] = []
    made(tmp_path, calls)
    damage(tmp_path / "two" / victim)
    made(tmp_path, calls)
    assert calls == ["one", "two", "two"] and not artifacts.damages(tmp_path / "two")
    made(tmp_path, calls)
    assert len(calls) == 3


@pytest.mark.parametrize("damage", [truncate, zeros, lambda file: file.write_text('{"notes": []}')])
def test_a_damaged_journal_costs_its_seconds_and_no_training(tmp_path: Path, damage) -> None:
    Journal(tmp_path, ["A note."]).timed("work", "Worked", lambda: None)
    damage(tmp_path / "journal.json")
    assert Journal(tmp_path, []).notes == []
    assert (tmp_path / "journal.json.damaged").is_file() and "journal.json" in progress.display().notes[0]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def finished(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which the tests copy."""
    folder = tmp_path_factory.mktemp("run") / "run"
    distilled(photos, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("student.onnx", truncate),
        ("summary.json", flip),
        ("distill/seed-0/model.safetensors", flip),
        ("evaluation/logits.safetensors", flip),
        ("recipe.yaml", zeros),
    ],
)
def test_a_finished_run_notices_damage_and_mends_it(finished: Path, photos: Path, tmp_path: Path, name, damage) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    damage(run / name)
    result = distilled(photos, run)
    assert any(f"{run / name} " in note for note in progress.display().notes)
    assert (run / f"{name}.damaged").is_file()
    assert results(run) == results(finished) and result.folder == run
    assert not any(artifacts.damages(file.parent) for file in run.rglob(artifacts.MANIFEST))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["student.onnx", "distill/seed-0/card.json"])
def test_a_damaged_model_is_not_used(finished: Path, photos: Path, tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    file = run / name
    content = file.read_bytes()
    place = content.rindex(b"0") if file.suffix == ".json" else len(content) // 2
    file.write_bytes(content[:place] + b"1" + content[place + 1 :])
    model = run / "student.onnx" if file.suffix == ".onnx" else run
    with pytest.raises(RunError, match="it is damaged or was changed after potstill wrote it"):
        potstill.load(model).predict(np.zeros((1, 8, 8), np.uint8))
