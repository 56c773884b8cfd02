"""Small worlds with a pool: labelled patterns in one file, images without labels in another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from potstill.config import build
from potstill.data.manifest import Manifest
from potstill.stages.selftrain import SelftrainConfig
from tests.worlds import CLASSES, shapes


def pixels(manifest: Manifest, rows: np.ndarray) -> np.ndarray:
    return np.stack([manifest.image(int(row)) for row in rows])


def labelled(folder: Path, count: int = 300) -> tuple[Path, Manifest]:
    """Write an .npz with train, validation and test; return it and its images."""
    made = shapes(count)
    arrays: dict[str, Any] = {"classes": np.array(CLASSES)}
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        rows = made.rows(split)
        arrays |= {f"x_{name}": pixels(made, rows), f"y_{name}": made.label[rows]}
    file = folder / "labelled.npz"
    np.savez(file, **arrays)
    return file, made


def pool_file(folder: Path, images: np.ndarray, name: str = "pool") -> Path:
    file = folder / f"{name}.npy"
    np.save(file, images)
    return file


def more(count: int = 300, seed: int = 9) -> np.ndarray:
    """Return further images of the same patterns."""
    made = shapes(count, seed=seed)
    return pixels(made, np.arange(len(made)))


def settings(data: Path, unlabelled: Path | None, **changes: Any) -> SelftrainConfig:
    plain = {
        "data": {"path": str(data), "unlabelled": None if unlabelled is None else str(unlabelled)},
        "teachers": [{"model": "builtin:mlp"}],
        "folds": 3,
        "rounds": 1,
        "seeds": 2,
        "steps": 30,
        "teacher_steps": 40,
        "train": {"batch_size": 32, "lr": 0.01},
        "to_review": 6,
    }
    return build(SelftrainConfig, {**plain, **changes})
