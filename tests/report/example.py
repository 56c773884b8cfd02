"""Run folders as the stages write them, with invented but believable figures, to build reports from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from potstill.data.formats import from_arrays
from potstill.data.manifest import SPLITS
from potstill.data.thumbnails import data_url
from potstill.evaluation import statistics
from potstill.evaluation.shipping import Goal
from potstill.stages.examples import Reference
from potstill.stages.shipped import Delivered
from potstill.stages.shipped import shipped as record

DIGITS = tuple(str(digit) for digit in range(10))


def right(random: np.random.Generator, accuracy: float, seeds: int, images: int) -> np.ndarray:
    """Return bool [seeds, images]: models that are right on about `accuracy` percent, mostly on the same images."""
    ease = random.normal(size=images)
    reached = np.quantile(ease, 1 - (accuracy + random.normal(size=(seeds, 1)) * 0.4) / 100)
    return ease + 0.3 * random.normal(size=(seeds, images)) > reached


def model(name: str, accuracy: Any, *, parameters: int, bytes: int, latency: float) -> dict[str, Any]:
    seeds = {"test_accuracy": accuracy} if isinstance(accuracy, list) else {}
    return {
        "name": name,
        "accuracy": float(np.mean(accuracy)),
        **seeds,
        "parameters": parameters,
        "bytes": bytes,
        "latency_ms": latency,
    }


def world(*, control: float, student: float, seeds: int, images: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (models, verdict) of a run whose control and student reach about these accuracies."""
    correct = {}
    for number, (name, accuracy) in enumerate({"control": control, "student": student}.items()):
        correct[name] = right(np.random.default_rng(40 + number), accuracy, seeds, images)
    found = {name: [100 * float(row.mean()) for row in rows] for name, rows in correct.items()}
    small = {"parameters": 19_885, "bytes": 81_240, "latency": 0.0142}
    models = {
        "teacher": model("builtin:cnn", 99.26, parameters=1_412_394, bytes=5_655_120, latency=0.7133),
        "control": model("builtin:mlp", found["control"], **small),
        "student": model("builtin:mlp", found["student"], **small),
        "student_int8": model(
            "builtin:mlp", [a - 0.2 for a in found["student"]], parameters=19_885, bytes=24_901, latency=0.0119
        ),
    }
    models["teacher"]["validation_accuracy"] = {"last": [99.1]}
    for name in ("control", "student"):
        accuracy = models[name]["test_accuracy"]
        models[name]["validation_accuracy"] = {"last": accuracy, "best": [a + 0.3 for a in accuracy]}
    return models, statistics.compare(correct["student"], correct["control"]).to_json()


def summary(
    *, control: float, student: float, seeds: int, images: int, classes: tuple[str, ...], unlabelled: int
) -> dict[str, Any]:
    models, verdict = world(control=control, student=student, seeds=seeds, images=images)
    return {
        "schema": 2,
        "kind": "distill",
        "potstill": "0.1.0",
        "command": "potstill distill digits --teacher builtin:cnn --student builtin:mlp --labels 100",
        "date": "2026-11-21T13:00:00+00:00",
        "name": "digits",
        "machine": {"cpu": "Example CPU @ 2.6 GHz", "cores": 2, "threads": 2, "device": "cpu", "python": "3.11.7"},
        "versions": {"torch": "2.15.0", "onnxruntime": "1.30.0", "numpy": "2.4.6"},
        "recipe": {
            "data": {"source": "digits", "validation": 0.1},
            "teacher": {"model": "builtin:cnn", "train": {"epochs": 20, "lr": 0.05}},
            "student": {"model": "builtin:mlp", "options": {"hidden": [32]}},
            "distill": {"alpha": 0.1, "temperature": 4.0, "train": {"epochs": 60, "lr": 0.1}},
            "seeds": seeds,
            "seed": 0,
        },
        "data": {
            "source": "scikit-learn's handwritten digits",
            "classes": list(classes),
            "splits": {
                "train": 1131,
                "labelled": 1131 - unlabelled,
                "unlabelled": unlabelled,
                "validation": 126,
                "test": images,
            },
            "counts": {name: [113, 13, images // len(classes)] for name in classes},
            "image": {"channels": 1, "height": 8, "width": 8},
        },
        "models": models,
        "verdict": verdict,
        "export": {
            "student": {"max_logit_difference": 7.6e-6, "agreement": 100.0, "images": images},
            "student_int8": {"max_logit_difference": 0.41, "agreement": 99.3, "images": images},
        },
        "stages": [
            _stage("teacher", "Trained the teacher", 12.3, "builtin:cnn, 20 epochs on the 100 labelled images."),
            _stage("label", "Asked the teacher about every image", 1.4, "4 views of each of 1,131 images."),
            _stage("control", "Trained the control", 9.1, "The student alone: same start, same batches, no teacher."),
            _stage("distill", "Distilled the student", 11.7, "0.1 cross_entropy + 0.9 kd at temperature 4."),
            _stage("export", "Exported and checked", 3.2, "student.onnx, and student_int8.onnx."),
        ],
        "notes": ["No test split was found, so 30 % of the images were held out for it, class by class."],
    }


def _stage(name: str, title: str, seconds: float, text: str) -> dict[str, Any]:
    return {"name": name, "title": title, "seconds": seconds, "folder": name, "text": text}


def write_curve(folder: Path, *, last: float, epochs: int, terms: tuple[str, ...], seed: int) -> None:
    """Write a metrics.jsonl whose validation accuracy ends near `last` percent."""
    random = np.random.default_rng(seed)
    rows = []
    for epoch in range(1, epochs + 1):
        progress = 1 - np.exp(-6 * epoch / epochs)
        train = {t: 2.3 * (1 - 0.8 * progress) / (n + 1) + 0.02 * random.normal() for n, t in enumerate(terms)}
        train["loss"] = sum(train.values()) / len(terms)
        accuracy = 10 + (last - 10) * progress + 0.4 * random.normal()
        rows.append(
            {
                "epoch": epoch,
                "step": epoch * 9,
                "learning_rate": 0.1 * (1 - epoch / epochs),
                "train": train,
                "validation": {"accuracy": accuracy, "loss": 2.3 - 0.02 * accuracy},
                "seconds": 0.1 * epoch,
            }
        )
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_curves(folder: Path, *, control: float, student: float, seeds: int) -> None:
    for seed in range(seeds):
        write_curve(folder / f"control/seed-{seed}", last=control, epochs=60, terms=("cross_entropy",), seed=seed)
        terms = ("cross_entropy", "kd")
        write_curve(folder / f"distill/seed-{seed}", last=student, epochs=60, terms=terms, seed=10 + seed)


def logits_of(random: np.random.Generator, label: np.ndarray, classes: int, accuracy: float) -> np.ndarray:
    """Return logits [N, K] that are right on about `accuracy` percent of the images."""
    logits = random.normal(size=(len(label), classes))
    logits[np.arange(len(label)), label] += np.where(random.uniform(size=len(label)) < accuracy / 100, 5.0, -3.0)
    return logits


def picture(random: np.random.Generator, label: int) -> dict[str, Any]:
    grey = Image.fromarray((random.uniform(size=(8, 8)) * 255).astype(np.uint8))
    return {"image": data_url(grey, "PNG"), "name": f"{label}/{random.integers(1000)}.png", "label": label}


def shipped(told: dict[str, Any], folder: Path, *, images: int, accuracy: float) -> None:
    """Complete the summary by what is shipped and the figures behind it; write examples.json."""
    classes, random = told["data"]["classes"], np.random.default_rng(5)
    label = random.permutation(np.arange(images) % len(classes))
    own, teacher = (logits_of(random, label, len(classes), one) for one in (accuracy, 99.0))
    pixels = (random.uniform(size=(images, 8, 8)) * 255).astype(np.uint8)
    manifest = from_arrays(pixels, label, classes=classes, root="digits")
    manifest = manifest.with_split(np.full(images, SPLITS.index("test"), np.uint8))
    student = told["models"]["student"]
    one = Delivered("student", "student.onnx", own, student["bytes"], student["latency_ms"], 1, "the best of 3 seeds")
    one = replace(one, others={"student_int8.onnx": "student_int8.onnx is smaller but slower."})
    told |= record(one, manifest, folder, Reference("teacher", teacher), goal=Goal(max_drop=20))
    content = json.loads((folder / "examples.json").read_text())
    content["samples"] = [picture(random, k % len(classes)) for k in range(6)]
    (folder / "examples.json").write_text(json.dumps(content))


def write_run(
    folder: Path,
    *,
    control: float = 82.1,
    student: float = 90.6,
    seeds: int = 3,
    images: int = 540,
    classes: tuple[str, ...] = DIGITS,
    unlabelled: int = 1031,
) -> dict[str, Any]:
    """Write a whole run folder and return its summary."""
    told = summary(control=control, student=student, seeds=seeds, images=images, classes=classes, unlabelled=unlabelled)
    models, verdict = world(control=90.9, student=90.6, seeds=seeds, images=images)
    told["comparisons"] = [
        {
            "name": "every label",
            "text": "The same with the labels of all images, so that the control can learn from all of them too.",
            "models": models,
            "verdict": verdict,
        }
    ]
    write_curve(folder / "teacher", last=99.1, epochs=20, terms=("cross_entropy",), seed=99)
    write_curves(folder, control=control, student=student, seeds=seeds)
    write_curves(folder / "comparisons/every-label", control=90.9, student=90.6, seeds=seeds)
    shipped(told, folder, images=images, accuracy=student)
    (folder / "summary.json").write_text(json.dumps(told))
    return told
