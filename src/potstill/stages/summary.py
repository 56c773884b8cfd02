"""`summary.json`: all metrics of a run in one file (docs/summary.md documents it)."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from potstill._version import __version__
from potstill.evaluation.statistics import Verdict, class_weights, compare
from potstill.training import devices
from potstill.training.settings import TrainConfig

SCHEMA = 2
LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "onnx", "onnxruntime", "numpy")


def machine() -> dict[str, Any]:
    """Return the facts of this machine that results depend on."""
    return {
        "cpu": devices.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Return the versions of the libraries that results depend on."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


class Strict(BaseModel):
    """A part of a summary that has no other keys."""

    model_config = ConfigDict(extra="forbid")


class Parity(Strict):
    """Parity of an exported file with its network."""

    agreement: float
    max_logit_difference: float
    images: int


class FromPhoto(Strict):
    """The latency of a file that takes photos, for one of height and width `size`: preprocessing and network."""

    size: tuple[int, int]
    latency_ms: float


class Figures(Strict):
    """One model in any summary. A metric that was not measured is absent; docs/summary.md has the units."""

    name: str | None = None
    parameters: int | None = None
    macs: int | None = None
    flash: int | None = None
    ram: int | None = None
    file: str | None = None
    bytes: int | None = None
    sha256: str | None = None
    latency_ms: float | None = None
    latency: list[dict[str, Any]] | None = None
    from_photo: FromPhoto | None = None
    compiled: dict[str, Any] | None = None
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    balanced_accuracy: float | None = None
    worst_recall: float | None = None
    images: int | None = None
    loss: float | None = None
    calibration_error: float | None = None
    recall: dict[str, float] | None = None
    test_accuracy: list[float] | None = None
    validation_accuracy: dict[str, list[float]] | None = None
    lost: float | None = None
    p: float | None = None
    agreement: float | None = None
    max_logit_difference: float | None = None
    reject: dict[str, Any] | None = None
    pool: bool | None = None
    steps: int | None = None
    seconds: float | None = None
    against_labels_only: dict[str, Any] | None = None
    members: list[dict[str, Any]] | None = None
    chain: list[dict[str, Any]] | None = None


class Images(Strict):
    """The data of a stage."""

    source: str
    fingerprint: str
    classes: list[str]
    splits: dict[str, int]
    counts: dict[str, list[int]]
    image: dict[str, int]


class Summary(BaseModel):
    """The keys of every summary.json; each kind of stage has others too."""

    model_config = ConfigDict(extra="allow")

    schema_: Literal[2] = Field(alias="schema")
    kind: Literal[
        "distill", "compare", "selftrain", "finetune", "label", "prune", "quantize", "export", "shrink", "train",
        "experiment",
    ]  # fmt: skip
    potstill: str
    command: str
    date: datetime.datetime
    name: str
    machine: dict[str, Any]
    versions: dict[str, str]
    recipe: dict[str, Any]
    data: Images
    models: dict[str, Figures]
    stages: list[dict[str, Any]]
    seconds: float
    notes: list[str]


def check(summary: dict[str, Any]) -> None:
    """Raise `pydantic.ValidationError` if a summary lacks a key, or has one of another name or type."""
    Summary.model_validate(summary)


def header(kind: str, name: str, command: str) -> dict[str, Any]:
    """Return the part of a summary with command, date, machine and versions."""
    return {
        "schema": SCHEMA,
        "kind": kind,
        "potstill": __version__,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "name": name,
        "machine": machine(),
        "versions": versions(),
    }


def correct(logits: list[np.ndarray], label: np.ndarray) -> np.ndarray:
    """Return the correct predictions of the models of all seeds, bool [S, N]."""
    return np.stack([one.argmax(1) == label for one in logits])


def verdict(students: list[np.ndarray], controls: list[np.ndarray], label: np.ndarray, train: TrainConfig) -> Verdict:
    """Return BEATS, TIES or LOSES for the logits of students against controls, one of each per seed.

    train: their settings. What validation selected by is what decides: balanced accuracy for select="balanced".
    """
    return compare(correct(students, label), correct(controls, label), weight=weights_of(label, train))


def weights_of(label: np.ndarray, train: TrainConfig) -> np.ndarray | None:
    """Return the weights of the images in a verdict, float64 [N]; None where all count alike. label: int64 [N]."""
    return class_weights(label) if train.select == "balanced" else None
