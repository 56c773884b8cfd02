"""What the tests of distillation share: a trained teacher, small students, and one way to let one teach the other."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill.data.augment import parse_policy
from potstill.data.loader import Loader, Order
from potstill.data.pixels import load_pixels
from potstill.data.views import View
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.objectives.feature_terms import Wiring, wire
from potstill.objectives.objective import Objective, Term
from potstill.teachers.base import Teacher
from potstill.teachers.live import LiveTeacher
from potstill.training.engine import fit
from potstill.training.loop import Fitted
from potstill.training.predict import predict_logits
from potstill.training.settings import TrainConfig
from tests.worlds import CLASSES, shapes

CONFIG = TrainConfig(epochs=12, batch_size=48, lr=0.02, precision="fp32")
SHORT = CONFIG.model_copy(update={"epochs": 6})


@functools.cache
def world(size: int = 8) -> Loader:
    manifest = shapes(size=size)
    pixels = load_pixels(manifest, size=(size, size), resize=size, channels=1, cache=None)
    return Loader(manifest, pixels, View(parse_policy("shift"), size=(size, size), seed=0))


def mixing(kind: str | None) -> Loader:
    plain = world()
    return Loader(plain.manifest, plain.pixels, plain.view, mix=kind)


def model(name: str, seed: int = 1, size: int = 8, **options: Any) -> Classifier:
    return zoo.create(f"builtin:{name}", classes=CLASSES, size=(size, size), channels=1, options=options, seed=seed)


def order(loader: Loader, views: int = 3) -> Order:
    return Order(loader.manifest, batch_size=CONFIG.batch_size, seed=0, views=views)


@functools.cache
def _taught(name: str, options: tuple[tuple[str, Any], ...]) -> dict[str, torch.Tensor]:
    import tempfile

    loader, network = world(), model(name, seed=7, **dict(options))
    objective = Objective([Term(loss="cross_entropy")], classes=3, teacher=None)
    with tempfile.TemporaryDirectory() as folder:
        fit(network, objective, loader, order(loader), CONFIG, folder=Path(folder), seed=0)
    return network.state_dict()


def teacher(name: str = "small-cnn", **options: Any) -> Classifier:
    """Return a teacher that knows the shapes; trained once, copied for every test."""
    options = options or ({"width": 8} if name == "small-cnn" else {})
    network = model(name, **options)
    network.load_state_dict(_taught(name, tuple(options.items())))
    return network.eval()


def wired(terms: Sequence[Term], student: Classifier, network: Classifier | None, **settings: Any) -> Wiring:
    loader = world()
    steps = CONFIG.epochs * order(loader).steps_per_epoch
    rows = torch.from_numpy(loader.manifest.rows("train"))
    return wire(terms, student, network, **{"rows": rows, "steps": steps, "seed": 0, **settings})


def teach(
    terms: Sequence[Term], student: Classifier, network: Classifier, folder: Path, *, mix: str | None = None,
    function: Teacher | None = None, config: TrainConfig = CONFIG,
) -> tuple[Classifier, Fitted]:  # fmt: skip
    """Let `network` teach `student`; assert that it did not change; return the trained student and the report."""
    wiring = wired(terms, student, network, mixed=mix is not None)
    live = LiveTeacher(network.replace(taps=wiring.taps))
    objective = Objective(terms, classes=3, teacher=function or live, connections=wiring.connections)
    loader = mixing(mix)
    fitted = fit(wiring.student, objective, loader, order(loader), config, folder=folder, seed=0)
    live.assert_unchanged()
    return wiring.student, fitted


def losses(fitted: Fitted, name: str = "loss") -> list[float]:
    return [row["train"][name] for row in fitted.rows]


def answers(network: Classifier) -> np.ndarray:
    loader = world()
    return predict_logits(network, loader, loader.manifest.rows("test"))
