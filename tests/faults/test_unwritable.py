"""Results that cannot be written are refused before the work, with a sentence that names what was typed."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from potstill import artifacts
from potstill.cli import app
from potstill.config import Config
from potstill.errors import RunError
from potstill.stages.stage import stage
from potstill.writable import obstacle
from tests.test_stage import DATA

COMMANDS = [
    "finetune digits --model builtin:mlp",
    "distill digits",
    "selftrain digits",
    "label digits --teacher nosuch",
    "label digits --teacher nosuch --part 1/2",
    "prune nosuch --keep 0.5",
    "quantize nosuch",
    "export nosuch",
    "shrink digits --max-bytes 50kB",
    "demo",
    "run number-formats",
]


class Settings(Config):
    reusable = ("epochs",)
    epochs: int = 1


@pytest.fixture
def denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder can be written to, as by another user: the superuser, who may run the tests, can write anywhere."""

    def refuse(**_: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("afile.txt").write_text("precious")
    return Path("afile.txt")


def carry_out(folder: Path, epochs: int = 1) -> dict[str, Any]:
    return stage("prune", Settings(epochs=epochs), folder, lambda _: {"data": DATA, "models": {}}, name="x")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_at_its_start(file: Path, command: str) -> None:
    result = CliRunner().invoke(app, [*command.split(), "--out", "afile.txt/x"])
    assert result.exit_code == 2 and result.stderr == (
        "error: The results cannot be written to afile.txt/x: afile.txt is not a folder. "
        "Choose another folder: --out FOLDER\n"
    )
    assert [one.name for one in Path.cwd().iterdir()] == ["afile.txt"]


def test_a_folder_without_permission_is_named_as_typed(tmp_path: Path, denied: None) -> None:
    (tmp_path / "unw").mkdir()
    result = CliRunner().invoke(app, ["finetune", "digits", "--model", "builtin:mlp", "--out", f"{tmp_path}/unw/x"])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert f"cannot be written to {tmp_path}/unw/x: no file can be made in {tmp_path}/unw (Perm" in result.stderr
    assert not list((tmp_path / "unw").iterdir())


def test_the_folder_that_nobody_named_is_refused_too(file: Path) -> None:
    Path("runs").write_text("precious")
    with pytest.raises(RunError, match=r"written to runs/x: runs is not a folder\. .*--out FOLDER"):
        carry_out(Path("runs/x"))


def test_a_finished_run_is_read_where_nothing_can_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    first = carry_out(tmp_path / "run")
    request.getfixturevalue("denied")
    assert carry_out(tmp_path / "run") == first
    with pytest.raises(RunError, match="The results cannot be written to"):
        carry_out(tmp_path / "run", epochs=2)
    assert artifacts.finished(tmp_path / "run") is not None


def test_obstacles(tmp_path: Path) -> None:
    assert obstacle(tmp_path / "a" / "b") == "" and not list(tmp_path.iterdir())
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    assert obstacle(tmp_path / "link" / "b") == f"{tmp_path}/link is not a folder"
    assert "File name too long" in obstacle(tmp_path / ("x" * 300))
    if Path("/proc/self").exists():
        assert "no file can be made in /proc (" in obstacle(Path("/proc/x"))


def test_a_write_that_fails_later_is_a_sentence(file: Path) -> None:
    with pytest.raises(RunError, match=r"afile\.txt/x\.csv cannot be written: afile\.txt is not a folder\."):
        artifacts.write_text(file / "x.csv", "")
    with pytest.raises(RunError, match=r"run/x\.csv cannot be written: afile\.txt is not a folder\."):
        with artifacts.before_first_write(file / "run", (file / "run").mkdir):
            artifacts.write_text(file / "run" / "x.csv", "")
    with pytest.raises(FileNotFoundError), artifacts.atomic(Path("y.csv")):  # of another file: a bug
        Path("nothing").read_text()
