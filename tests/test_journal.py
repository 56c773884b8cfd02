"""A run's folder belongs to one piece of work, and remembers what its earlier calls took and told."""

from __future__ import annotations

import pytest

from potstill import progress
from potstill.config import Config
from potstill.errors import RunError
from potstill.stages.run_folder import Journal, claim, differences


class Train(Config):
    epochs: int = 5
    lr: float = 0.1


class Settings(Config):
    name: str = "x"
    train: Train = Train()


def called(folder, *notes):
    """One call of a command that tells something; its journal."""
    with progress.use(progress.Display()):
        journal = Journal(folder)
        journal.timed("work", "Worked", lambda: [progress.note(note) for note in notes])
    return journal


def test_a_resumed_run_knows_what_its_first_call_told_and_took(tmp_path):
    first = called(tmp_path, "Fell back to fp32.", "Left out one image.")
    second = called(tmp_path, "Left out one image.", "Went on.")
    with progress.use(progress.Display()):
        assert Journal(tmp_path).notes == ["Fell back to fp32.", "Left out one image.", "Went on."]
    assert second.seconds >= first.seconds and len(second.stages) == 1


def test_what_failed_has_taken_its_time_too(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Journal(tmp_path).timed("work", "Failed", lambda: 1 / 0)
    assert (tmp_path / "journal.json").is_file()


def test_a_folder_is_claimed_once_and_refused_with_the_difference(tmp_path):
    folder = tmp_path / "run"
    claim(folder, Settings())
    claim(folder, Settings())
    with pytest.raises(RunError) as told:
        claim(folder, Settings(name="y", train=Train(epochs=6)))
    assert "name is x there, y here, and 1 more" in str(told.value)
    assert f"potstill run {folder}/recipe.yaml --out {folder}" in str(told.value)
    assert differences(folder / "recipe.yaml", Settings(train=Train(epochs=6))) == ["train.epochs is 5 there, 6 here"]


def test_a_setting_newer_than_the_folder_has_its_default_there(tmp_path):
    (tmp_path / "prune.yaml").write_text("name: x\ntrain: {epochs: 5}\n")
    claim(tmp_path, Settings(), kind="prune")
    with pytest.raises(RunError, match="train.lr is 0.1 there, 0.2 here") as told:
        claim(tmp_path, Settings(train=Train(lr=0.2)), kind="prune")
    assert "go on with" not in str(told.value)


def test_settings_that_no_longer_exist_and_foreign_folders_are_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\ntemprature: 3\n")
    with pytest.raises(RunError, match="temprature"):
        claim(tmp_path, Settings())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(RunError, match="holds something else"):
        claim(tmp_path / "photos", Settings())
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.jpg"]
