"""What is shipped: student or control, which seed, how it is quantized, and its files."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import load_file

from potstill import artifacts, progress, words
from potstill.config import build
from potstill.data.manifest import Manifest
from potstill.evaluation.shipping import Goal, against
from potstill.model_files.folder import load_model
from potstill.stages import test_split
from potstill.stages.compress.export import FLOAT, INT8, ExportStageConfig, export_files
from potstill.stages.compress.quantize import QuantizeConfig, quantize
from potstill.stages.compress.recommend import candidate
from potstill.stages.examples import Reference
from potstill.stages.shipped import Delivered, shipped
from potstill.stages.shrink.costs import Costed
from potstill.stages.shrink.jobs import CALIBRATION, Kind, Outcome
from potstill.training.settings import TrainConfig

LOST = 0.5  # points of validation accuracy that post-training quantization may cost before weights are trained for it
QAT_EPOCHS = 2
OTHER_FILES = (".tflite", ".txt", ".c", ".h", ".xml", ".bin", ".pte")


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


def files(one: Picked, entry: Costed, teacher: Path, folder: Path, to: tuple[str, ...]) -> dict[str, Any]:
    """Write and measure the files, for ONNX and the runtimes `to`; return the summary of the export.

    With the `folder` of the weights that are shipped, and their `validation_accuracy` in percent.

    entry: the candidate, with the bytes that its file may have. Weights of fewer than 8 bits, and those that lose more
    than `LOST` points on validation after post-training quantization, are reconstructed block by block; if that still
    loses more, they are trained for their bits, and the better of both is kept.
    """
    bits = entry.candidate.bits
    source, accuracy = one.folder, one.outcome.accuracy[bits]
    if bits < 8 or one.outcome.accuracy[32] - accuracy > LOST:
        source, accuracy = _quantized(one, entry, teacher, folder)
    settings = build(ExportStageConfig, {"model": str(source), "to": ["onnx", *to]})
    return export_files(settings, exported(folder, to)) | {"folder": source, "validation_accuracy": round(accuracy, 3)}


def exported(folder: Path, to: tuple[str, ...]) -> Path:
    """Return where the files for the runtimes `to` are made, within the folder of a goal."""
    return folder / "-".join(["export", *to])


def _quantized(one: Picked, entry: Costed, teacher: Path, folder: Path) -> tuple[Path, float]:
    """Return the folder of the better quantized network, and its validation accuracy in percent."""
    place = folder / "quantized"
    record = quantize(_settings(one, entry, "ptq"), place)
    accuracy = record["record"]["validation_calibrated"]
    lost = one.outcome.accuracy[32] - accuracy
    if entry.candidate.bits < 8:
        used = sorted(set(record["bits"].values()))
        progress.note(f"The weights have {used[0]} to {used[-1]} bits, chosen by layer for the budget.")
    if lost <= LOST:
        return place, accuracy
    progress.note(
        f"Quantization after training loses {lost:.1f} points on validation: training the weights for it "
        f"({QAT_EPOCHS} epochs)."
    )
    trained = folder / "trained-for-its-bits"
    record = quantize(_settings(one, entry, "qat", teacher=str(teacher)), trained)["record"]
    after = record["validation_trained"]
    return (trained, after) if after > accuracy else (place, accuracy)


def _settings(one: Picked, entry: Costed, mode: Literal["ptq", "qat"], **more: Any) -> QuantizeConfig:
    train = TrainConfig(
        epochs=QAT_EPOCHS, batch_size=32, optimizer="adamw", lr=0.0002, weight_decay=0, precision="fp32", compile=False
    )
    bits: dict[str, Any] = {"weight_bits": entry.candidate.bits}
    if entry.candidate.bits < 8:
        bits |= {"max_bytes": entry.cost.bytes}
    return QuantizeConfig(model=str(one.folder), train=train, calibration=CALIBRATION, mode=mode, **bits, **more)


def delivered(
    export: Mapping[str, Any], one: Picked, bits: int, made: Path, folder: Path, manifest: Manifest, goal: Goal
) -> dict[str, Any]:
    """Copy the files from the folder `made` into `folder`; return `ship` and the figures behind it."""
    models = export["models"]
    small = INT8 if INT8 in models else FLOAT  # a network with integer weights has one file
    names = {small: INT8} | ({FLOAT: FLOAT} if small == INT8 else {})
    for source, name in names.items():
        _copy(made / source, folder / name)
    for file in made.iterdir():
        if file.suffix in OTHER_FILES:
            _copy(file, folder / file.name)
    artifacts.write_json(folder / "student.json", {"folder": str(export["folder"].relative_to(folder))})
    files = {name: replace(candidate(source, models[source]), name=name) for source, name in names.items()}
    file = files.pop(names[small])
    others = {name: against(other, file) for name, other in files.items()}
    logits = load_file(made / "evaluation" / test_split.FILE)[small]
    seeds = f"{one.kind}, seed {one.seed}, the best on validation"
    card = load_model(one.folder).card
    chosen = Delivered(
        "shipped", file.name, logits, file.bytes, file.latency_ms, one.seed, seeds, others=others, card=card
    )
    result = shipped(chosen, manifest, folder, _teacher(one.folder.parents[1]), goal=goal)
    latency = next(iter(files.values())).latency_ms if files else file.latency_ms
    facts = {"kind": one.kind, "bits": bits, "float_latency_ms": latency}
    facts["validation_accuracy"] = export["validation_accuracy"]
    kept = ("recall", "calibration_error", "lost", "agreement")
    result["ship"] |= facts | {key: models[small][key] for key in kept if key in models[small]}
    return result


def _teacher(run: Path) -> Reference | None:
    """Return the teacher's logits for the test images, evaluated with the proof; None where it has none."""
    logits = load_file(run / "evaluation" / test_split.FILE)
    return Reference("teacher", logits["teacher"]) if "teacher" in logits else None


def exceeded(shipped: Mapping[str, Any], limits: Mapping[str, float]) -> list[str]:
    """Return a sentence for each limit that the measured file does not keep, although its untrained one did.

    limits: max_bytes, and max_latency in milliseconds on this machine; others do not depend on training.
    """
    figures = {"max_bytes": ("bytes", words.size), "max_latency": ("latency_ms", words.milliseconds)}
    return [
        f"{shipped['file']} exceeds --{name.replace('_', '-')} {shown(limits[name])}: it has {shown(shipped[key])}. "
        "Run the command again with a smaller limit; finished trainings are reused."
        for name, (key, shown) in figures.items()
        if name in limits and shipped[key] > limits[name]
    ]


def _copy(source: Path, target: Path) -> None:
    with artifacts.atomic(target) as temporary:
        shutil.copyfile(source, temporary)
