"""Seconds that a probe takes: one penalty, and the whole choice by five folds, on 1,000 images in 8 views each.

    python benchmarks/probe.py [--classes 2] [--features 1280] [--record]
    python benchmarks/probe.py --against

Features are drawn: class means in 40 hidden dimensions, noise, a ReLU. The bars are 2 and 60 seconds on two cores; the
time of one penalty has in it what the first probe of a process imports. --against: our own logistic regression beside
scikit-learn's (lbfgs, warm_start=True) in the same search, several sizes, medians of five turns.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from results import record
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from potstill.bench.bars import provenance, where
from potstill.data.formats import from_arrays
from potstill.data.manifest import Manifest
from potstill.stages.finetune import logistic
from potstill.stages.finetune import probe as probing
from potstill.stages.finetune.logistic import Linear, Scaling
from potstill.stages.finetune.probe import probe

SIZES = ((400, 1280), (1000, 1280), (2000, 512))
TURNS = 5
Fit = Callable[..., Linear]

IMAGES, VIEWS, HIDDEN = 1000, 8, 40
TASKS = (("one penalty", 0.01, 2), ("choice among penalties by five folds", None, 60))


@dataclass
class Drawn:
    """What `probe` asks of stored features, from arrays [N, V, D]; the first view is the clean one."""

    values: np.ndarray
    layers: tuple[str, ...] = ("pooled",)

    def of(self, rows: np.ndarray, layer: str) -> np.ndarray:
        return self.values[rows, 0]

    def views_of(self, rows: np.ndarray, layer: str) -> np.ndarray:
        return self.values[rows]


def world(classes: int, width: int, *, count: int = IMAGES, views: int = VIEWS) -> tuple[Drawn, Manifest]:
    """Return features of images whose classes overlap a little."""
    random = np.random.default_rng(0)
    hidden = random.normal(size=(count, HIDDEN)).astype(np.float32)
    label = (hidden[:, :classes] + 0.5 * random.normal(size=(count, classes))).argmax(1)
    shown = (hidden @ random.normal(size=(HIDDEN, width)).astype(np.float32))[:, None]
    noise = 3 * random.standard_normal((count, views, width), dtype=np.float32)
    images = random.integers(0, 256, (count, 4, 4), dtype=np.uint8)
    splits = np.full(count, "train")
    return Drawn(np.maximum(shown + noise, 0)), from_arrays(images, label, splits=splits, root="drawn")


def timed(work: Callable[[], Any]) -> dict[str, float]:
    """Return the seconds of a piece of work: wall, and of all processors together."""
    wall, processor = time.monotonic(), time.process_time()
    work()
    return {"wall": round(time.monotonic() - wall, 2), "processor": round(time.process_time() - processor, 2)}


def of_sklearn(tolerance: float) -> Fit:
    """Return scikit-learn's logistic regression with the signature and the objective of `logistic.fit`."""

    def fit(x: Tensor, label: Tensor, classes: int, penalty: float, *, start: Linear | None = None) -> Linear:
        strength = penalty / 2 if classes == 2 else penalty  # one vector stands for the two classes
        model = LogisticRegression(
            C=1 / (strength * len(x)), tol=tolerance, max_iter=logistic.STEPS, solver="lbfgs", warm_start=True
        )
        if start is not None:
            weight, bias = start.weight.numpy(), start.bias.numpy()
            model.coef_ = weight[1:] - weight[:1] if classes == 2 else weight.copy()
            model.intercept_ = bias[1:] - bias[:1] if classes == 2 else bias.copy()
        model.fit(x.numpy(), label.numpy())
        weight, bias = (torch.from_numpy(v).float() for v in (model.coef_, model.intercept_))
        return (
            Linear(torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2]))
            if classes == 2
            else Linear(weight, bias)
        )

    return fit


CONTENDERS: dict[str, Fit] = {
    "ours": logistic.fit,
    "scikit-learn, tol 1e-4": of_sklearn(1e-4),
    "scikit-learn, tol 1e-3": of_sklearn(1e-3),
}


def objective(model: Linear, x: Tensor, label: Tensor, penalty: float) -> float:
    """Return the penalised mean cross-entropy, in float64."""
    loss = torch.nn.functional.cross_entropy(model(x).double(), label)
    return float(loss + penalty / 2 * model.weight.double().square().sum())


def duel(count: int, width: int, classes: int, threads: int) -> dict[str, Any]:
    """Return for one size the median seconds of each contender in both tasks, what they reached and what they chose."""
    torch.set_num_threads(threads)
    features, manifest = world(classes, width, count=count, views=1)
    x, label = torch.from_numpy(features.values[:, 0]), torch.from_numpy(manifest.label)
    x = Scaling.of(x)(x)
    rows: dict[str, dict[str, Any]] = {name: {"one": [], "choice": []} for name in CONTENDERS}
    for _ in range(TURNS):
        for name, fit in CONTENDERS.items():
            probing.fit = fit
            began = time.perf_counter()
            with probing.threadpool_limits(limits=1, user_api="blas"):
                model = fit(x, label, classes, 0.01)
            between = time.perf_counter()
            chosen = probe(features, manifest, penalty=None, folds=5, seed=0)
            rows[name]["one"].append(between - began)
            rows[name]["choice"].append(time.perf_counter() - between)
            best = min(chosen.tried, key=lambda tried: tried.loss)
            rows[name] |= {
                "objective": objective(model, x, label, 0.01),
                "penalty": chosen.penalty,
                "held_out_loss": best.loss,
                "held_out_accuracy": best.accuracy,
                "penalties": len(chosen.tried),
            }
    probing.fit = logistic.fit
    for row in rows.values():
        row["one"], row["choice"] = (round(float(np.median(row[task])), 4) for task in ("one", "choice"))
    return {"images": count, "features": width, "classes": classes, "threads": threads, "rows": rows}


def against() -> list[dict[str, Any]]:
    """Print a line a size and contender; return all of it."""
    found = []
    for count, width in SIZES:
        for classes in (2, 10):
            for threads in (1, 2):
                found.append(duel(count, width, classes, threads))
                print(f"{count} x {width}, {classes} classes, {threads} threads", flush=True)
                for name, row in found[-1]["rows"].items():
                    print("   ", f"{name:<24}", json.dumps(row), flush=True)
    return found


def table(found: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| 1,000 images in 8 views | seconds | of all processors | bar |", "|---|---:|---:|---:|"]
    lines += [f"| {row['task']} | {row['wall']:.2f} | {row['processor']:.2f} | {row['bar']} |" for row in found]
    return "\n".join(lines)


def main() -> None:
    """Print both times."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--classes", type=int, default=2)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="also write RESULTS.json and RESULTS.md")
    parser.add_argument("--against", action="store_true", help="beside scikit-learn's, on several sizes")
    given = parser.parse_args()
    if given.against:
        against()
        return
    torch.set_num_threads(given.threads)
    features, manifest = world(given.classes, given.features)
    found = []
    for task, penalty, bar in TASKS:
        taken = timed(lambda p=penalty: probe(features, manifest, penalty=p, folds=5, seed=0))
        found.append({"task": task, **taken, "bar": bar, "met": taken["wall"] < bar})
    facts = {**provenance(given.threads), "classes": given.classes, "features": given.features}
    print(table(found))
    print(json.dumps(facts))
    if given.record:
        record("probe", {**facts, "results": found}, f"{table(found)}\n\n{where(facts)}")


if __name__ == "__main__":
    main()
