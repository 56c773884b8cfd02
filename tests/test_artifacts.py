"""Folders are whole or recognisably unfinished."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from safetensors import SafetensorError

from potstill import artifacts, distributed
from potstill.api.verb import verb
from potstill.errors import RunError


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    artifacts.write_json(file, {"a": 1})
    with pytest.raises(RuntimeError), artifacts.atomic(file) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert artifacts.read_json(file) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_the_full_disk_of_another_library_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    with pytest.raises(RunError, match="The disk is full: .*w.safetensors"), artifacts.atomic(file):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    @verb
    def writes() -> None:
        with open("/dev/full", "w") as file:  # noqa: PTH123
            file.write("x")

    with pytest.raises(RunError, match="The disk is full"):
        writes()


def test_a_full_disk_is_a_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match="The disk is full: .*figures.json.*run the same command again"):
        artifacts.write_json(tmp_path / "figures.json", {})
    assert list(tmp_path.iterdir()) == []


def test_the_checkpoint_of_a_finished_stage_is_removed(tmp_path: Path) -> None:
    """A process was killed between the manifest and the checkpoint, or just now."""
    for _ in range(2):
        (tmp_path / artifacts.CHECKPOINT).touch()
        artifacts.stage(tmp_path, {"seed": 1}, lambda: {"result": 7})
        assert not (tmp_path / artifacts.CHECKPOINT).exists()


def test_work_is_done_once_and_other_inputs_are_refused(tmp_path: Path) -> None:
    calls: list[int] = []

    def work() -> dict[str, Any]:
        calls.append(1)
        return {"result": 7}

    folder = tmp_path / "stage"
    first = artifacts.stage(folder, {"data": "x", "seed": 1}, work)
    again = artifacts.stage(folder, {"seed": 1, "data": "x"}, work)
    assert first == again and first["result"] == 7 and len(calls) == 1
    with pytest.raises(RunError, match="made with another seed"):
        artifacts.stage(folder, {"data": "x", "seed": 2}, work)


def test_a_folder_without_manifest_is_unfinished(tmp_path: Path) -> None:
    folder = tmp_path / "stage"

    def dies() -> dict[str, Any]:
        artifacts.write_json(folder / "model.json", {})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifacts.stage(folder, {}, dies)
    assert artifacts.finished(folder) is None
    assert artifacts.stage(folder, {}, lambda: {"done": True})["done"]


def test_fingerprint_ignores_the_order_of_keys() -> None:
    assert artifacts.fingerprint({"a": 1, "b": [2]}) == artifacts.fingerprint({"b": [2], "a": 1})
    assert artifacts.fingerprint({"a": 1}) != artifacts.fingerprint({"a": 2})


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"half": ')
    with pytest.raises(RunError, match="damaged"):
        artifacts.finished(tmp_path)


def test_what_was_written_first_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "precision.json"
    assert artifacts.write_first(file, "fp32") == "fp32" and artifacts.write_first(file, "bf16") == "fp32"
    monkeypatch.setattr(distributed, "is_main", lambda: False)
    monkeypatch.setattr(distributed, "broadcast", lambda value: value or "of process 0")
    other = tmp_path / "new" / "precision.json"
    assert artifacts.write_first(other, "bf16") == "of process 0" and not other.parent.exists()
