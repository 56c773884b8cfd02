"""A tree of pictures and a small network with weights of its own, for the tests of transfer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from safetensors.torch import save_file

from potstill.config import build
from potstill.models import zoo
from potstill.stages.finetune import FinetuneConfig
from tests.worlds import shapes

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE = 32
OPTIONS = {"channels": (8, 16, 24, 32), "stem_width": 8}


def write_tree(folder: Path, count: int = 90) -> Path:
    """Write the shapes as split/class/number.png."""
    manifest = shapes(count, size=SIDE, channels=3)
    for row in range(len(manifest)):
        split = ("train", "val", "test")[manifest.split[row]]
        target = folder / split / manifest.classes[manifest.label[row]] / f"{row}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(manifest.image(row)).save(target)
    return folder


def write_weights(file: Path, classes: int = 7) -> Path:
    """Write what somebody may have trained: a small ResNet for other classes."""
    made = zoo.create("resnet18", classes=[str(k) for k in range(classes)], size=(SIDE, SIDE), options=OPTIONS)
    save_file(made.network.state_dict(), file)
    return file


def settings(tree: Path, weights: Path | None, **changes: Any) -> FinetuneConfig:
    """Return a transfer that takes a second or two."""
    pretrained = {} if weights is None else {"weights": str(weights), "mean": MEAN, "std": STD}
    start = {"model": "resnet18", "options": OPTIONS, "views": 2, **pretrained}
    train = {"epochs": 2, "batch_size": 18, **changes.pop("train", {})}
    data = {"path": str(tree), "size": SIDE, **changes.pop("data", {})}
    return build(FinetuneConfig, {**start, "data": data, "train": train, **changes})
