"""`summary.json`: every figure of a run in one file (docs/summary.md documents it)."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch

from potstill._version import __version__
from potstill.evaluate.metrics import accuracy, agreement
from potstill.evaluate.statistics import Verdict, compare

SCHEMA = 1
LIBRARIES = ("torch", "torchvision", "timm", "accelerate", "onnx", "onnxruntime", "numpy")


def machine() -> dict[str, Any]:
    """Return the facts of this machine that figures depend on."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of the libraries that figures depend on."""
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def header(command: str, name: str) -> dict[str, Any]:
    """Return the part of a summary that says what made it, where and when."""
    return {
        "schema": SCHEMA,
        "potstill": __version__,
        "command": command,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "name": name,
        "machine": machine(),
        "versions": versions(),
    }


def correct(logits: list[np.ndarray], label: np.ndarray) -> np.ndarray:
    """Return bool [S, N]: whether each seed's model is right on each image."""
    return np.stack([said.argmax(1) == label for said in logits])


def verdict(students: list[np.ndarray], controls: list[np.ndarray], label: np.ndarray) -> Verdict:
    """Return BEATS, TIES or LOSES for the logits of students against controls, a seed each."""
    return compare(correct(students, label), correct(controls, label))


def accuracies(logits: list[np.ndarray], label: np.ndarray) -> list[float]:
    """Return accuracy in percent, a seed each, rounded to what the number of images can tell."""
    return [round(float(accuracy(said, label)), 3) for said in logits]


def parity(torch_logits: np.ndarray, file_logits: np.ndarray) -> dict[str, Any]:
    """Return how far an exported file strays from what was trained, over the same images."""
    return {
        "max_logit_difference": float(np.abs(torch_logits - file_logits).max()),
        "label_agreement": round(float(agreement(torch_logits, file_logits)), 3),
        "images": len(torch_logits),
    }
