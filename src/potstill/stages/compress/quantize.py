"""`potstill quantize`: post-training quantization and quantization-aware training, and the files."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from potstill import artifacts, distributed, progress
from potstill.errors import ConfigError, ModelError
from potstill.exporters import export_onnx, gate
from potstill.exporters.onnx_low_bit import export_quantized
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.packed import load_packed, packed
from potstill.models.outputs import Classifier
from potstill.progress import parts
from potstill.stages import rejection
from potstill.stages.compress import simulation
from potstill.stages.compress.common import (
    CompressionSetup,
    note_of_depthwise,
    open_model,
    recover,
    teacher_of,
    validation_accuracy,
    warn_of_slow,
)
from potstill.stages.compress.measuring import measured_files
from potstill.stages.compress.post_training import calibrated, with_inputs, without_inputs
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.run_folder import Journal
from potstill.stages.stage import stage
from potstill.stages.target import check_fit
from potstill.stages.teacher.prepared import TeacherSource

BEFORE, ONNX, PACKED = "original.onnx", "model.onnx", "model.packed.safetensors"


def quantize(config: QuantizeConfig, folder: Path, *, stores: Path | None = None, command: str = "") -> dict[str, Any]:
    """Write the quantized model and its files into `folder` and return the summary.

    model.packed.safetensors has the weights packed in their bits. So has model.onnx, which is written if activations
    have 8 bits or are float, and runs in 8 bits. Accuracy is that of the files, loaded again. With `simulate` only the
    summary is written. An interrupted call with the same settings is resumed.
    """
    return stage(
        "quantize",
        config,
        folder,
        lambda journal: _carry_out(config, folder, stores, journal),
        name=folder.name,
        command=command,
    )


def _carry_out(config: QuantizeConfig, folder: Path, stores: Path | None, journal: Journal) -> dict[str, Any] | None:
    if distributed.world() > 1 and (config.mode != "qat" or config.simulate):
        raise ConfigError("Only the training of --mode qat is shared out among processes: start without torchrun.")
    parts.announce("data", "calibration", *(["training"] if config.mode == "qat" else []), "evaluation")
    setup = journal.timed("data", "Read the model and the images", lambda: open_model(config))
    if "quantized" in setup.model.card.compressed:
        raise ModelError(f"{config.model} is already quantized. Give the model that it was made from.")
    device = {} if config.simulate else check_fit(config.target, setup.model, bits=config.weight_bits)
    if config.simulate:
        return simulation.simulate(config.weight_format, config.activation_format, setup, folder, journal)
    distributed.by_main(lambda: _original(config, setup, folder))
    floating, start, bits = journal.timed("calibration", "Calibrated and quantized", lambda: calibrated(config, setup))
    record = {"validation_calibrated": validation_accuracy(start, setup)}
    if config.mode == "qat":
        quantized = start
        start, trained = journal.timed(
            "training",
            "Quantization-aware training",
            lambda: learned(config, setup, floating, quantized, folder / "trained", teacher_of(setup, folder, stores)),
        )
        record |= trained | {"validation_trained": validation_accuracy(start, setup)}
    if not distributed.is_main():
        return None
    with distributed.alone():
        return _finish(config, setup, start, record, bits, folder, journal) | device


def _original(config: QuantizeConfig, setup: CompressionSetup, folder: Path) -> None:
    """Export the model as it is, before the work, so that it fails early."""
    export_onnx(setup.model, folder / BEFORE, input=config.input)
    gate.check_float(folder / BEFORE, setup.model, setup.gated)


def _finish(
    config: QuantizeConfig,
    setup: CompressionSetup,
    start: Classifier,
    record: dict[str, Any],
    bits: dict[str, int],
    folder: Path,
    journal: Journal,
) -> dict[str, Any]:
    """Write and measure the files; return the summary."""
    start = rejection.with_threshold(start, setup.data, setup.precision)
    save_model(start, folder)
    files = _files(config, setup, start, folder)
    networks = {"original": setup.model, **dict.fromkeys(list(files)[1:], start)}
    measured = journal.timed(
        "evaluation", "Evaluated the test split once", lambda: measured_files(networks, files, setup, folder)
    )
    if warn_of_slow(measured["models"]):
        note_of_depthwise(start.network)
    return _summary(config, setup, measured["models"], record, bits) | measured


def learned(
    config: QuantizeConfig,
    setup: CompressionSetup,
    floating: nn.Module,
    start: Classifier,
    folder: Path,
    teacher: TeacherSource | None,
) -> tuple[Classifier, dict[str, Any]]:
    """Return the classifier after quantization-aware training in `folder`, and its record."""
    together = config.methods(floating).learn_activations
    student = start if together else without_inputs(start)
    record = recover(student, setup, teacher, folder, title="Quantization-aware training")
    trained = load_model(folder)
    if config.activation_bits and not together:
        trained = with_inputs(config, setup, floating, trained)
    return trained, record


def _files(config: QuantizeConfig, setup: CompressionSetup, model: Classifier, folder: Path) -> dict[str, Path]:
    """Write the files; return them by name, the original's first."""
    files = {"original": folder / BEFORE, "packed": folder / PACKED}
    with artifacts.atomic(folder / PACKED) as temporary:
        temporary.write_bytes(packed(model))
    gate.check_quantized(folder / PACKED, model, setup.gated, opened=load_packed(folder / PACKED))
    if config.writes_onnx:
        export_quantized(model, folder / ONNX, setup.raw_calibration, input=config.input)
        gate.check_quantized(folder / ONNX, model, setup.gated)
        files["onnx"] = folder / ONNX
    else:
        progress.note(
            "No ONNX file is written, because runtimes need activations of at least 8 bits. The model is in the packed "
            "file, which is loaded again for evaluation."
        )
    return files


def _summary(
    config: QuantizeConfig,
    setup: CompressionSetup,
    models: dict[str, Any],
    record: dict[str, Any],
    bits: dict[str, int],
) -> dict[str, Any]:
    speed = {}
    if "onnx" in models:
        speed = {"speed_up": round(models["original"]["latency_ms"] / models["onnx"]["latency_ms"], 3)}
    return {
        "data": setup.facts,
        "chosen": asdict(config.methods(setup.model.network)),
        "teacher": setup.teacher_name if config.mode == "qat" else None,
        "models": models,
        **speed,
        "bits": bits,
        "record": record,
    }
