"""`potstill export`: one folder with all files for deployment, each evaluated by running it.

model.onnx, model_int8.onnx, ...   the files, with their card inside
model.tflite, model.c, ...         for other runtimes; labels.txt, the names of the classes
golden/                            original images with the expected probabilities of each file, and verify.py
summary.json                       accuracy, agreement, bytes and latency of each file; the recommended one
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from potstill import progress
from potstill.artifacts import sha256
from potstill.compress.quantize import quantized_layers
from potstill.errors import ModelError
from potstill.evaluation import metrics
from potstill.evaluation.measured import measured
from potstill.evaluation.shipping import Preference
from potstill.exporters import c_source, export_int8, export_onnx, export_quantized, gate, tflite
from potstill.exporters.footprint import FLOAT as FLOAT_BITS
from potstill.exporters.onnx_float import OPSET
from potstill.exporters.other_runtimes import to_executorch, to_openvino
from potstill.model_files.c_code import compiler
from potstill.model_files.latency import from_photo, latency_ms
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.runtimes import TfliteModel, open_exported, require
from potstill.models.outputs import Classifier
from potstill.progress import parts
from potstill.stages import rejection, test_split
from potstill.stages.compress.common import CompressConfig, CompressionSetup, note_of_depthwise, open_model
from potstill.stages.compress.compiled import compiled
from potstill.stages.compress.recommend import candidate, recommended
from potstill.stages.examples import Reference
from potstill.stages.golden import IMAGES, golden_of_validation
from potstill.stages.run_folder import Journal
from potstill.stages.shipped import Delivered, Gain, shipped
from potstill.stages.stage import stage
from potstill.stages.target import check_fit, with_device_figures

FLOAT, INT8 = "model.onnx", "model_int8.onnx"
TIMED = ((1, 1), (32, 1), (1, 0), (32, 0))
"""Batch sizes and threads (0: all cores) with which the latency of every file is measured."""


class ExportStageConfig(CompressConfig):
    """The exported files and their runtimes."""

    to: tuple[Literal["onnx", "openvino", "executorch", "tflite", "c"], ...] = Field(
        default=("onnx",), description="runtimes; ONNX is always included"
    )
    int8: bool = Field(default=True, description="also export a file quantized to 8 bits")
    tflite_type: Literal["uint8", "int8"] = Field(
        default="uint8", description="type of image and result of the 8-bit TensorFlow Lite file"
    )
    probabilities: bool = Field(
        default=False, description="TensorFlow Lite files return calibrated probabilities instead of logits"
    )
    opset: int = Field(default=OPSET, ge=18, le=23, description="ONNX opset of the float file")
    prefer: Preference = Field(default="speed", description="what the recommended file is best in")
    golden: int = Field(default=IMAGES, ge=0, description="reference images with expected outputs to include")


def export_files(config: ExportStageConfig, folder: Path, *, command: str = "") -> dict[str, Any]:
    """Write the files into `folder`, evaluate each on the test split and return the summary.

    Raises `ModelError` before any work if requested runtimes are not installed, or there is no C compiler.
    """
    require(*(runtime for runtime in dict.fromkeys(config.to) if runtime != "onnx"))
    if "c" in config.to:
        compiler()
    return stage(
        "export",
        config,
        folder,
        lambda journal: _carry_out(config, folder, journal),
        name=folder.name,
        command=command,
    )


def _carry_out(config: ExportStageConfig, folder: Path, journal: Journal) -> dict[str, Any]:
    parts.announce("data", "export", "evaluation", "latency", *(["c"] if "c" in config.to else []))
    setup = journal.timed("data", "Read the model and the images", lambda: open_model(config))
    _check_operators(config, setup)
    device = check_fit(config.target, setup.model, bits=8 if config.int8 else FLOAT_BITS)
    temperature = _temperature(config, setup)
    files = journal.timed("export", "Wrote the files", lambda: _files(config, setup, folder, temperature))
    golden_of_validation(files, setup.data, folder / "golden", count=config.golden)
    logits = journal.timed("evaluation", "Evaluated the test split once", lambda: _logits(setup, files, folder))
    models = journal.timed("latency", "Measured the latency", lambda: _measured(setup, files, logits))
    if INT8 in models and models[INT8]["latency"][0]["speed_up"] < 1:
        note_of_depthwise(setup.model.network)
    own = {
        "data": setup.facts,
        "temperature": temperature,
        **_shipped(config, setup, models, _calibrated(logits, temperature), folder),
    }
    if "c" in config.to:
        onnx = [file for file in files if file.suffix == ".onnx"]
        models |= journal.timed("c", "Wrote and ran C", lambda: compiled(setup, onnx, logits))
    return {**own, "models": models, **device}


def _check_operators(config: ExportStageConfig, setup: CompressionSetup) -> None:
    """Raise `ModelError` that names all operators which a requested file cannot have, before anything is written."""
    if not {"tflite", "c"} & {*config.to} or quantized_layers(setup.model.network):
        return
    with tempfile.TemporaryDirectory(prefix="potstill-check-") as folder:
        file = Path(folder) / FLOAT
        export_onnx(Classifier(setup.model.network, setup.model.card).cpu().eval(), file, opset=config.opset)
        checks = [target.check_operators for name, target in (("tflite", tflite), ("c", c_source)) if name in config.to]
        problems = [problem for check in checks for problem in _problems(check, file, config.model)]
    if problems:
        raise ModelError(*problems)


def _problems(check: Callable[[Path, str], None], file: Path, name: str) -> list[str]:
    try:
        check(file, name)
    except ModelError as error:
        return error.problems
    return []


def _temperature(config: ExportStageConfig, setup: CompressionSetup) -> float | None:
    """Return the temperature that calibrates the network on the run's validation images.

    None for other images, on which the network may have been trained, and if they do not show that it is needed.
    """
    if config.data is not None and "path" in config.data.model_fields_set:
        return None
    rows = setup.data.manifest.rows("validation", labelled=True)
    logits, label = test_split.clean_logits(setup.model, setup.data, rows), setup.data.manifest.label[rows]
    return metrics.calibration_temperature(logits, label)


def _files(config: ExportStageConfig, setup: CompressionSetup, folder: Path, temperature: float | None) -> list[Path]:
    """Write the requested files; the first is the ONNX file that the others are compared with."""
    model = Classifier(setup.model.network, setup.model.card).cpu().eval()
    files = [folder / FLOAT]
    if quantized_layers(model.network):
        progress.note(f"{config.model} is quantized: {FLOAT} has its integer weights, and there is no {INT8}.")
        export_quantized(model, files[0], setup.raw_calibration, input=config.input, temperature=temperature)
        gate.check_quantized(files[0], model, setup.gated)
    else:
        export_onnx(model, files[0], input=config.input, opset=config.opset, temperature=temperature)
        gate.check_float(files[0], model, setup.gated)
        if config.int8:
            files.append(folder / INT8)
            export_int8(model, files[0], files[1], setup.raw_calibration)
            gate.check_int8(files[1], model, setup.gated, source=config.model)
    for exported in files:
        rejection.file_with_threshold(exported, setup.data, setup.precision)
        with_device_figures(exported)
    for exported in list(files):
        for out in _converted(config, setup, exported):
            files.append(out)
            _check_converted(out, exported, model, setup)
    if "executorch" in config.to:
        files.append(folder / "model.pte")
        to_executorch(model.with_card(OnnxModel(files[0]).card), files[-1], temperature=temperature)
        gate.check_float(files[-1], model, setup.gated, opened=open_exported(files[-1]))
    return files


def _converted(config: ExportStageConfig, setup: CompressionSetup, exported: Path) -> Iterator[Path]:
    """Convert an ONNX file for the requested runtimes, and yield each file when it is written."""
    if "openvino" in config.to:
        yield to_openvino(exported, exported.with_suffix(".xml"))
    if "tflite" in config.to:
        options = {"outside": config.tflite_type, "probabilities": config.probabilities}
        yield tflite.to_tflite(exported, exported.with_suffix(".tflite"), setup.raw_calibration, **options)


def _check_converted(file: Path, exported: Path, model: Classifier, setup: CompressionSetup) -> None:
    """Compare a file of another runtime with what the ONNX file that it was made from should compute."""
    opened = open_exported(file)
    integers = bool(quantized_layers(model.network)) or exported.name == INT8
    if isinstance(opened, TfliteModel) and (integers or opened.probabilities):
        temperature = (opened.temperature or 1.0) if opened.probabilities else None
        options = {"opened": opened, "temperature": temperature}
        gate.check_rounding(file, OnnxModel(exported), model, setup.gated, **options)
    elif integers:
        gate.check_quantized(file, OnnxModel(exported, optimized=False), setup.gated, opened=opened)
    else:
        gate.check_float(file, model, setup.gated, opened=opened)


def _logits(setup: CompressionSetup, files: list[Path], folder: Path) -> dict[str, np.ndarray]:
    """Return the logits [N, K] of the network and of each file for the test split."""
    models = {"network": setup.model, **{file.name: open_exported(file) for file in files}}
    identities = {"network": setup.model.card.weights_sha256, **{file.name: sha256(file) for file in files}}
    return test_split.open_test(models, identities, setup.data, folder / "evaluation")


def _measured(setup: CompressionSetup, files: list[Path], logits: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the test metrics of each file against the network, its bytes and latencies."""
    label, classes = setup.test_label, setup.data.manifest.classes
    network = logits["network"]
    figures = {"network": measured(network, label, classes=classes)}
    latencies = _latencies(files)
    for file in files:
        opened = open_exported(file)
        figures[file.name] = {
            **measured(logits[file.name], label, classes=classes, reference=network),
            "file": file.name,
            **rejection.tested(file.name, opened, logits[file.name], label),
            **opened.card.device,
            "bytes": sum(part.stat().st_size for part in _parts(file)),
            "sha256": sha256(file),
            "latency": latencies[file.name],
            **from_photo(file),
        }
    return figures


def _calibrated(logits: dict[str, np.ndarray], temperature: float | None) -> dict[str, np.ndarray]:
    """Return the logits whose softmax are the calibrated probabilities."""
    return {name: one / np.float32(temperature or 1) for name, one in logits.items()}


def _shipped(
    config: ExportStageConfig,
    setup: CompressionSetup,
    models: dict[str, Any],
    logits: dict[str, np.ndarray],
    folder: Path,
) -> dict[str, Any]:
    """Return the recommended file, and the figures behind it."""
    found = recommended(models, config.prefer)
    one = candidate(found["file"], models[found["file"]])
    more = {"because": found["because"] if found["others"] else "", "others": found["others"]}
    card = setup.model.card
    delivered = Delivered(one.name, one.name, logits[one.name], one.bytes, one.latency_ms, card=card, **more)
    network = logits["network"]
    gains = [Gain(f"{name}, against the network", network, made) for name, made in logits.items() if name != "network"]
    return shipped(delivered, setup.data.manifest, folder, Reference("network", network), gains=gains)


def _parts(file: Path) -> list[Path]:
    """Return a file, and the file of its weights if they are separate."""
    return [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]


def _latencies(files: list[Path]) -> dict[str, list[dict[str, Any]]]:
    """Measure the latency of all files in alternation; `speed_up` is relative to the first."""
    latencies: dict[str, list[dict[str, Any]]] = {file.name: [] for file in files}
    with progress.task("Measuring latency", total=len(TIMED)) as task:
        for batch, threads in TIMED:
            # The number of threads of ExecuTorch cannot be set.
            timed = [file for file in files if threads == 0 or file.suffix != ".pte"]
            results = latency_ms(timed, batch=batch, threads=threads)
            for file, one in zip(timed, results, strict=True):
                figures = {key: round(value, 4) for key, value in one.to_json().items()}
                speed_up = round(results[0].median_ms / one.median_ms, 3)
                latencies[file.name].append({**figures, "speed_up": speed_up})
            task.advance(text=f"batch {batch}, {threads or 'all'} threads")
    return latencies
