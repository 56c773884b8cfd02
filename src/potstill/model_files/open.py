"""Every path that becomes a model: a run or stage folder, an exported or a packed file."""

from __future__ import annotations

from pathlib import Path

from potstill import artifacts, names
from potstill.errors import ModelError
from potstill.model_files.folder import load_model
from potstill.model_files.packed import is_packed, load_packed
from potstill.model_files.runtimes import SUFFIXES, open_exported
from potstill.training.predict import Model

STUDENT = "student.json"


def find(model: str) -> Model | None:
    """Return the model at a path (a run or stage folder, an exported or packed file); None where `model` is a name."""
    path = Path(model)
    if path.suffix in SUFFIXES:
        return open_exported(path)
    if is_packed(path):
        return load_packed(path)
    if (path / STUDENT).is_file():
        return load_model(_student(path))
    if (path / "recipe.yaml").is_file():
        raise ModelError(f"The run in {path} is not finished. Finish it: potstill run {path}/recipe.yaml --out {path}")
    if path.is_dir():
        return load_model(path)
    return None


def _student(run: Path) -> Path:
    """Return the stage folder that a run's student.json names; raise `RunError` where it names none inside the run."""
    file = run / STUDENT
    content = artifacts.read_json(file)
    return names.inside(run, content.get("folder") if isinstance(content, dict) else content, origin=file)
