"""Opening a model from a path: a run or stage folder, an exported or a packed file."""

from __future__ import annotations

from pathlib import Path

from potstill import artifacts, names, own_code
from potstill.config import read_yaml
from potstill.errors import ModelError
from potstill.model_files.folder import load_model
from potstill.model_files.packed import is_packed, load_packed
from potstill.model_files.runtimes import SUFFIXES, Exported, open_exported
from potstill.models.card import Card
from potstill.models.card_record import card_from_json
from potstill.models.outputs import Classifier
from potstill.models.zoo import WEIGHTS
from potstill.words import argument

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
    if folder is None:
        return None
    opened = load_model(folder)
    return opened if folder == path else opened.with_card(_with_threshold(opened.card, path / STUDENT))


def temperature_of(model: Opened) -> float:
    """Return the calibration temperature by which the logits of a model are divided; 1 for those without one."""
    return 1.0 if isinstance(model, Classifier) else model.temperature or 1.0


def model_folder(path: Path) -> Path | None:
    """Return the folder that holds the weights of a run or stage folder; None where `path` is no folder."""
    if (path / STUDENT).is_file():
        return _student(path)
    if (path / "recipe.yaml").is_file():
        raise ModelError(_without_student(path))
    return path if path.is_dir() else None


def _without_student(run: Path) -> str:
    """Return why a folder with a recipe is no model."""
    record = run / "recipe.yaml"
    settings = read_yaml(record)
    if "methods" in settings:
        return f"{run} is a comparison, not a model. Give the folder of one of its models, in {run / 'cells'}."
    code = "".join(f" --allow-code {argument(file)}" for file in own_code.files_named(settings))
    resume = f"potstill run {argument(record)} --out {argument(run)}{code}"
    return f"The run in {run} is not finished. Finish it: {resume}"


def _student(run: Path) -> Path:
    """Return the stage folder that a run's student.json names; raise `RunError` where it names none inside the run."""
    file = run / STUDENT
    content = artifacts.read_json(file)
    return names.inside(run, content.get("folder") if isinstance(content, dict) else content, origin=file)


def _with_threshold(card: Card, file: Path) -> Card:
    """Return the card of a run's student with `Card.reject`, which its student.json has."""
    content = artifacts.read_json(file)
    reject = content.get("reject", {}) if isinstance(content, dict) else {}
    return card_from_json(card.to_json() | {"reject": reject}, origin=str(file))


def weights_file(path: Path) -> Path:
    """Return the file that the weights of the model at `path` are in."""
    folder = None if path.suffix in SUFFIXES else model_folder(path)
    return path if folder is None else folder / WEIGHTS
