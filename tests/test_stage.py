"""A run's folder belongs to one piece of work, and remembers what its earlier calls took and told."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from potstill import artifacts, progress
from potstill.config import Config
from potstill.errors import ConfigError, RunError
from potstill.stages.run_folder import Journal, check_free, claimed, differences, has_results
from potstill.stages.stage import stage


class Train(Config):
    epochs: int = 5
    lr: float = 0.1


class Settings(Config):
    name: str = "x"
    train: Train = Train()


DATA = {
    "source": "x",
    "fingerprint": "0",
    "classes": ["a"],
    "splits": {"train": 1, "validation": 1, "test": 1},
    "counts": {"train": [1], "validation": [1], "test": [1]},
    "image": {"channels": 1, "height": 8, "width": 8},
}


def called(folder, *notes):
    """One call of a stage that notes something; its journal."""
    with progress.recorded() as collected:
        journal = Journal(folder, collected)
        journal.timed("work", "Worked", lambda: [progress.note(note) for note in notes])
    return journal


def claim(folder, settings, kind="distill"):
    """Write a result into a folder, as a stage would."""
    check_free(folder, settings, kind)
    with claimed(folder, settings, kind):
        artifacts.write_text(folder / "part" / artifacts.MANIFEST, "{}")


def test_a_resumed_run_knows_notes_and_seconds_of_its_first_call(tmp_path):
    first = called(tmp_path, "Fell back to fp32.", "Left out one image.")
    second = called(tmp_path, "Left out one image.", "Went on.")
    assert Journal(tmp_path, []).notes == ["Fell back to fp32.", "Left out one image.", "Went on."]
    assert second.seconds >= first.seconds and len(second.stages) == 1


def test_what_failed_counts_where_it_left_a_result(tmp_path):
    def fail(folder):
        with pytest.raises(ZeroDivisionError):
            Journal(folder, []).timed("work", "Failed", lambda: 1 / 0)
        return (folder / "journal.json").is_file()

    (tmp_path / "result").mkdir()
    (tmp_path / "result" / artifacts.CHECKPOINT).touch()
    assert fail(tmp_path / "result") and not fail(tmp_path / "nothing")


def test_a_folder_is_claimed_once_and_refused_with_the_difference(tmp_path):
    folder = tmp_path / "run"
    claim(folder, Settings())
    claim(folder, Settings())
    with pytest.raises(RunError) as caught:
        claim(folder, Settings(name="y", train=Train(epochs=6)))
    assert "name is x there, y here, and 1 more" in str(caught.value)
    assert f"potstill run {folder}/recipe.yaml --out {folder}" in str(caught.value)
    assert differences(folder / "recipe.yaml", Settings(train=Train(epochs=6))) == ["train.epochs is 5 there, 6 here"]


def test_a_setting_newer_than_the_folder_has_its_default_there(tmp_path):
    (tmp_path / "prune.yaml").write_text("name: x\ntrain: {epochs: 5}\n")
    claim(tmp_path, Settings(), kind="prune")
    with pytest.raises(RunError, match="train.lr is 0.1 there, 0.2 here") as caught:
        claim(tmp_path, Settings(train=Train(lr=0.2)), kind="prune")
    assert "resume that run" not in str(caught.value)


def test_settings_that_no_longer_exist_and_foreign_folders_are_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: x\ntemprature: 3\n")
    (tmp_path / artifacts.CHECKPOINT).touch()
    with pytest.raises(RunError, match="temprature"):
        claim(tmp_path, Settings())
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(RunError, match="has other contents"):
        claim(tmp_path / "photos", Settings())
    assert [file.name for file in (tmp_path / "photos").iterdir()] == ["cat.jpg"]


def summary_of(notes=()):
    for note in notes:
        progress.note(note)
    return {"data": DATA, "models": {}}


def test_a_failed_start_leaves_nothing_and_the_mended_command_works(tmp_path):
    folder = tmp_path / "runs" / "x"

    def fail(journal):
        artifacts.write_json(folder / "original.json", {})
        raise ConfigError("Give --mean.")

    with pytest.raises(ConfigError):
        stage("prune", Settings(), folder, fail, name="x")
    assert not (tmp_path / "runs").exists()
    mended = Settings(train=Train(lr=0.2))
    stage("prune", mended, folder, lambda journal: summary_of(), name="x")
    assert not differences(folder / "prune.yaml", mended) and artifacts.finished(folder)["kind"] == "prune"


def test_a_failure_keeps_results_and_folders_that_were_there(tmp_path):
    def fail(journal):
        artifacts.write_json(tmp_path / "a" / "teacher" / artifacts.MANIFEST, {})
        raise RunError("Training diverged.")

    with pytest.raises(RunError):
        stage("prune", Settings(), tmp_path / "a", fail, name="x")
    assert has_results(tmp_path / "a") and (tmp_path / "a" / "prune.yaml").is_file()
    with pytest.raises(RunError, match="was made with other settings"):
        stage("prune", Settings(name="y"), tmp_path / "a", lambda journal: summary_of(), name="x")


def test_a_folder_without_results_is_free_for_other_settings(tmp_path):
    (tmp_path / "prune.yaml").write_text("name: old\n")
    (tmp_path / "journal.json").write_text('{"seconds": {"data: ": 9.0}, "notes": ["old"]}')
    result = stage("prune", Settings(), tmp_path, lambda journal: summary_of(["new"]), name="x")
    assert result["notes"] == ["new"] and not differences(tmp_path / "prune.yaml", Settings())


def test_a_folder_of_another_command_without_results_is_free(tmp_path):
    (tmp_path / "finetune.yaml").write_text("model: x\n")
    stage("prune", Settings(), tmp_path, lambda journal: summary_of(), name="x")
    assert not (tmp_path / "finetune.yaml").exists() and (tmp_path / "prune.yaml").is_file()
    with pytest.raises(RunError, match="has other contents"):
        stage("quantize", Settings(), tmp_path, lambda journal: summary_of(), name="x")


def test_a_failed_start_leaves_another_run_beside_it_alone(tmp_path):
    def fail(journal):
        artifacts.write_json(tmp_path / "runs" / "other" / "recipe.json", {})  # begun meanwhile by somebody else
        artifacts.write_json(tmp_path / "runs" / "x" / "original.json", {})
        raise ConfigError("Give --mean.")

    with pytest.raises(ConfigError):
        stage("prune", Settings(), tmp_path / "runs" / "x", fail, name="x")
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == ["other"]


def test_notes_of_one_run_stay_out_of_the_next(tmp_path):
    with progress.use(progress.Display()):  # the one of a command, shared by both
        first = stage("prune", Settings(), tmp_path / "a", lambda _: summary_of(["First."]), name="a")
        second = stage("prune", Settings(), tmp_path / "b", lambda _: summary_of(["Second."]), name="b")
    assert (first["notes"], second["notes"]) == (["First."], ["Second."])


def test_a_finished_stage_is_read_and_not_done_again(tmp_path):
    first = stage(
        "prune", Settings(), tmp_path / "a", lambda _: summary_of(), name="a", tables=lambda f: (f / "r").touch()
    )
    again = stage("prune", Settings(), tmp_path / "a", lambda _: pytest.fail("worked again"), name="a")
    assert again == first and (tmp_path / "a" / "r").exists()


def test_a_summary_with_a_key_of_another_vocabulary_is_refused(tmp_path):
    with pytest.raises(ValidationError, match="label_agreement"):
        figures = {"student": {"label_agreement": 100.0}}
        stage("prune", Settings(), tmp_path / "a", lambda _: {"data": DATA, "models": figures}, name="a")
    assert artifacts.finished(tmp_path / "a") is None
