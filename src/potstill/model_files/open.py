"""Opening a model from a path: a run or stage folder, an exported or a packed file."""

from __future__ import annotations

from pathlib import Path

from potstill import artifacts, names
from potstill.errors import ModelError
from potstill.model_files.folder import load_model
from potstill.model_files.packed import is_packed, load_packed
from potstill.model_files.runtimes import SUFFIXES, Exported, open_exported
from potstill.models.outputs import Classifier
from potstill.models.zoo import WEIGHTS

STUDENT = "student.json"

Opened = Classifier | Exported
"""A model that was opened: it has a card, and images [B, C, H, W] in 0..1 become `Outputs`."""


def find(model: str, *, threads: int | None = None) -> Opened | None:
    """Return the model at a path (a run or stage folder, an exported or packed file); None where `model` is a name.

    threads: of an exported file's runtime; None takes all cores.
    """
    path = Path(model)
    if path.suffix in SUFFIXES:
        artifacts.check_file(path)
        return open_exported(path, threads=threads)
    if is_packed(path):
        artifacts.check_file(path)
        return load_packed(path)
    folder = model_folder(path)
    return None if folder is None else load_model(folder)


def model_folder(path: Path) -> Path | None:
    """Return the folder that holds the weights of a run or stage folder; None where `path` is no folder."""
    if (path / STUDENT).is_file():
        return _student(path)
    if (path / "recipe.yaml").is_file():
        raise ModelError(f"The run in {path} is not finished. Finish it: potstill run {path}/recipe.yaml --out {path}")
    return path if path.is_dir() else None


def _student(run: Path) -> Path:
    """Return the stage folder that a run's student.json names; raise `RunError` where it names none inside the run."""
    file = run / STUDENT
    content = artifacts.read_json(file)
    return names.inside(run, content.get("folder") if isinstance(content, dict) else content, origin=file)


def weights_file(path: Path) -> Path:
    """Return the file that the weights of the model at `path` are in."""
    folder = None if path.suffix in SUFFIXES else model_folder(path)
    return path if folder is None else folder / WEIGHTS
