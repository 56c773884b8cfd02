"""What test_processes.py does once by itself and once under torchrun: train, ask, store, go the whole road."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from potstill import artifacts, distributed
from potstill.data.augment import parse_policy
from potstill.data.loader import Loader, Order
from potstill.data.pixels import load_pixels
from potstill.data.views import View
from potstill.evaluation.metrics import accuracy
from potstill.model_files.folder import save_model
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Objective, lecture_terms
from potstill.teachers import prediction_store as store_module
from potstill.teachers.prediction_store import Store
from potstill.teachers.stored import StoredTeacher
from potstill.training import engine, predict
from potstill.training.settings import TrainConfig
from tests.worlds import shapes

CONFIG = TrainConfig(
    epochs=3, batch_size=33, optimizer="sgd", lr=0.05, precision="fp32", clip=5.0, ema=0.9, accumulate=2
)


def network(kind: str) -> Classifier:
    """Return a dense network, a convolutional one without BatchNorm, or one with it."""
    made = zoo.create(
        "builtin:small-cnn", classes=("a", "b", "c"), size=(8, 8), channels=1, options={"width": 4}, seed=0
    )
    with zoo.seeded(0):
        layers = {
            "dense": lambda: [nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 3)],
            "convolution": lambda: [
                *(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU()),
                *(nn.Flatten(), nn.Linear(32, 3)),
            ],
        }
        return made if kind == "batchnorm" else made.replace(network=nn.Sequential(*layers[kind]()))


def main(folder: Path, data: Path) -> None:
    """Leave metrics.jsonl, model.safetensors, logits and a store in `folder`, and a run in `folder`/road."""
    store_module.PART_ROWS = 10
    manifest = shapes(231)
    pixels = load_pixels(manifest, size=(8, 8), resize=8, channels=1)
    loader = Loader(manifest, pixels, View(parse_policy("shift"), size=(8, 8), seed=0))
    store = Store(folder / "store", manifest.rows("train"), 2, {"teacher": "t"})
    predict.fill_store(store, network("batchnorm").eval(), loader)
    wrote = sum(1 for file in (folder / "store").rglob("*.safetensors") if file.stat().st_size)
    artifacts.write_json(folder / "parts.json", wrote)
    for kind in ("dense", "convolution", "batchnorm"):
        _train(kind, folder / kind, loader, StoredTeacher(store, 3))
    _go(folder, data)


def _train(kind: str, folder: Path, loader: Loader, teacher: StoredTeacher) -> None:
    classifier, manifest = network(kind), loader.manifest
    rows = manifest.rows("validation")

    def validate(classifier: Classifier) -> dict[str, float]:
        logits = predict.predict_logits(classifier, loader, rows)
        assert logits.shape == (len(rows), 3)
        return {"accuracy": accuracy(logits, manifest.label[rows]), "sum": float(np.abs(logits).sum())}

    objective = Objective(lecture_terms(alpha=0.5, temperature=2.0), classes=3, teacher=teacher)
    order = Order(manifest, batch_size=CONFIG.batch_size, seed=0, views=2)
    engine.fit(classifier, objective, loader, order, CONFIG, folder=folder, seed=0, validate=validate)
    state = {name: tensor.contiguous() for name, tensor in classifier.state_dict().items()}
    agreed = distributed.gather({name: tensor.clone() for name, tensor in state.items()})
    assert all(torch.equal(other[name], state[name]) for other in agreed for name in state)
    if distributed.is_main():
        save_file(state, folder / "model.safetensors")


def _go(folder: Path, data: Path) -> None:
    import potstill

    train = {"epochs": 2, "batch_size": 32, "lr": 0.01}
    recipe = {
        "data": {"path": str(data)},
        "teacher": {"model": "builtin:mlp", "options": {"hidden": 16}, "train": train},
        "student": {"model": "builtin:mlp", "options": {"hidden": 8}},
        "train": train,
        "seeds": 1,
        "export": {"int8": False},
    }
    potstill.run(recipe, out=folder / "road")
    _adapt(folder, data)


def _adapt(folder: Path, data: Path) -> None:
    """Leave what finetune, selftrain and quantize make of one untrained network."""
    import potstill

    train = {"epochs": 2, "batch_size": 32, "lr": 0.01, "precision": "fp32"}
    classes = shapes(12).classes
    network = zoo.create("builtin:mlp", classes=classes, size=(12, 12), channels=3, options={"hidden": 8}, seed=0)
    start, settings = folder / "start", {"path": str(data)}
    save_model(network, start)
    distributed.wait()
    potstill.finetune(
        settings, model=start, features="pooled", views=0, augment="none", train=train, out=folder / "fine"
    )
    potstill.quantize(start, data=settings, mode="qat", teacher="none", train=train, out=folder / "qat")
    potstill.selftrain(
        settings, labels=30, teacher="builtin:mlp", folds=2, rounds=0, student="builtin:mlp", steps=20, seeds=1,
        teacher_steps=20, train={"batch_size": 16, "precision": "fp32"}, max_distance=100, noise="none",
        out=folder / "self",
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
