"""What is shipped: student or control, which seed, how it is quantized, and its files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from potstill import artifacts, progress, words
from potstill.stages.compress.export import FLOAT, INT8, ExportStageConfig, export_files
from potstill.stages.compress.quantize import QuantizeConfig, quantize
from potstill.stages.shrink.candidates import Candidate
from potstill.stages.shrink.jobs import Kind, Outcome
from potstill.training.settings import TrainConfig

LOST = 0.5  # points of validation accuracy that post-training quantization may cost before weights are trained for it
QAT_EPOCHS = 2


@dataclass(frozen=True)
class Picked:
    """The network that is shipped. kind: "student" or "control"."""

    kind: str
    seed: int
    folder: Path
    outcome: Outcome

    @property
    def title(self) -> str:
        """What it is, for people."""
        return f"{self.kind}, seed {self.seed}"


def picked(run: Path, outcomes: Mapping[tuple[Kind, int], Outcome], bits: int) -> Picked:
    """Return the better of students and controls by their mean validation accuracy, and its best seed.

    outcomes: by kind and seed.
    """

    def mean(kind: str) -> float:
        return float(np.mean([one.accuracy[bits] for (each, _), one in outcomes.items() if each == kind]))

    kind = "student" if mean("student") >= mean("control") else "control"
    if kind == "control":
        progress.note(
            f"The control is shipped: trained without the teacher, it has {words.percent(mean('control'))} validation "
            f"accuracy, the students {words.percent(mean('student'))} (means over seeds)."
        )
    seed = max((seed for each, seed in outcomes if each == kind), key=lambda s: (outcomes[kind, s].accuracy[bits], -s))
    folder = run / {"student": "distill", "control": "control"}[kind] / f"seed-{seed}"
    return Picked(kind, seed, folder, outcomes[kind, seed])


def files(one: Picked, candidate: Candidate, teacher: Path, folder: Path) -> dict[str, Any]:
    """Write and measure the files; return the summary of the export, and that of the quantization, if there was one.

    Weights of fewer than 8 bits, and those that lose more than `LOST` points on validation after training, are trained
    for their bits.
    """
    source, extra = one.folder, {}
    lost = one.outcome.accuracy[32] - one.outcome.accuracy[candidate.bits]
    if candidate.bits < 8 or lost > LOST:
        progress.note(
            f"Post-training quantization to {candidate.bits} bits loses {lost:.1f} points on validation: training the "
            f"weights for it ({QAT_EPOCHS} epochs)."
            if lost > LOST
            else f"Training the weights for {candidate.bits} bits ({QAT_EPOCHS} epochs)."
        )
        source = folder / "quantized"
        extra["quantize"] = quantize(_qat(one, candidate, teacher), source)
    settings = ExportStageConfig(model=str(source), golden=8)
    return {"export": export_files(settings, folder / "export"), **extra}


def _qat(one: Picked, candidate: Candidate, teacher: Path) -> QuantizeConfig:
    train = TrainConfig(
        epochs=QAT_EPOCHS, batch_size=32, optimizer="adamw", lr=0.0002, weight_decay=0, precision="fp32", compile=False
    )
    return QuantizeConfig(
        model=str(one.folder),
        weight_bits=candidate.bits,
        mode="qat",
        teacher=str(teacher),
        train=train,
        calibration=256,
    )


def delivered(export: Mapping[str, Any], one: Picked, bits: int, exported: Path, folder: Path) -> dict[str, Any]:
    """Copy the files from the folder `exported` into `folder`; return the figures of the one that is shipped."""
    models = export["models"]
    small = INT8 if INT8 in models else FLOAT  # a network with integer weights has one file
    names = {small: f"model_int{bits}.onnx"} | ({FLOAT: FLOAT} if small == INT8 else {})
    for source, name in names.items():
        _copy(exported / source, folder / name)
    artifacts.write_json(folder / "student.json", {"folder": str(one.folder.relative_to(folder))})
    figures = models[small]
    latency = next(row["median_ms"] for row in figures["latency"] if (row["batch"], row["threads"]) == (1, 1))
    kept = ("accuracy", "interval", "images", "recall", "calibration_error", "bytes", "lost", "agreement")
    return {
        "file": names[small],
        "kind": one.kind,
        "seed": one.seed,
        "bits": bits,
        "latency_ms": latency,
        "float_latency_ms": next(
            row["median_ms"] for row in models[FLOAT]["latency"] if (row["batch"], row["threads"]) == (1, 1)
        ),
        **{key: figures[key] for key in kept if key in figures},
    }


def _copy(source: Path, target: Path) -> None:
    with artifacts.atomic(target) as temporary:
        shutil.copyfile(source, temporary)
