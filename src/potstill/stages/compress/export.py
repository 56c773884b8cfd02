"""`potstill export`: one folder with everything a device needs, each file measured by running it.

model.onnx, model_int8.onnx, ...   the files, with their card inside
golden/                            pictures and what each file says of them
summary.json                       accuracy, agreement, bytes and latency of each file; which one to take
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from potstill import progress
from potstill.compress.quantize import quantized_layers
from potstill.evaluation import metrics
from potstill.evaluation.measured import measured
from potstill.exporters import export_onnx, export_quantized, quantize_int8
from potstill.exporters.golden import write_golden
from potstill.exporters.onnx_float import OPSET
from potstill.exporters.other_runtimes import to_executorch, to_openvino
from potstill.model_files.latency import latency_ms
from potstill.model_files.runtimes import open_exported, require
from potstill.models.outputs import Classifier
from potstill.models.weights import sha256
from potstill.stages import test_split
from potstill.stages.compress.common import CompressConfig, Given, open_model
from potstill.stages.run_folder import Journal
from potstill.stages.stage import stage
from potstill.words import plural

FLOAT, INT8 = "model.onnx", "model_int8.onnx"
TIMED = ((1, 1), (32, 1), (1, 0), (32, 0))
"""Images a run and threads (0: all cores) with which every file is timed."""
WORSE = 0.05
"""A file whose accuracy differs from the network's with a smaller p (McNemar) is told to be worse."""


class ExportStageConfig(CompressConfig):
    """What is exported, for which runtimes."""

    to: tuple[Literal["onnx", "openvino", "executorch"], ...] = Field(default=("onnx",), description="ONNX always is")
    int8: bool = True
    opset: int = Field(default=OPSET, ge=18, le=23, description="of the float ONNX file")
    golden: int = Field(default=8, ge=0, description="validation images that go along with what the files say of them")


def export_files(config: ExportStageConfig, folder: Path, *, command: str = "") -> dict[str, Any]:
    """Write the files into `folder`, measure each on the test split and return the summary.

    Raises `ModelError` before any work where a runtime that was asked for is not installed.
    """
    for runtime in sorted({*config.to} - {"onnx"}):
        require(runtime)
    return stage(
        "export",
        config,
        folder,
        lambda journal: _carry_out(config, folder, journal),
        name=folder.name,
        command=command,
    )


def _carry_out(config: ExportStageConfig, folder: Path, journal: Journal) -> dict[str, Any]:
    given = journal.timed("data", "Read the model and the images", lambda: open_model(config))
    temperature = _temperature(config, given)
    files = journal.timed("export", "Wrote the files", lambda: _files(config, given, folder, temperature))
    if config.golden:
        _golden(config, given, files, folder / "golden")
    models = journal.timed("evaluation", "Opened the test split, once", lambda: _measured(given, files, folder))
    return {
        "data": given.facts,
        "temperature": temperature,
        "models": models,
        "recommended": recommended(models),
    }


def _temperature(config: ExportStageConfig, given: Given) -> float | None:
    """Return the temperature that calibrates the network on the run's validation images.

    None where other images were given, which the network may have been trained on, or where it makes no mistakes.
    """
    if config.data is not None and "path" in config.data.model_fields_set:
        return None
    rows = given.data.manifest.rows("validation", labelled=True)
    logits, label = test_split.answers(given.model, given.data, rows), given.data.manifest.label[rows]
    if metrics.correct(logits, label).all():
        return None
    return round(metrics.fit_temperature(logits, label), 4)


def _files(config: ExportStageConfig, given: Given, folder: Path, temperature: float | None) -> list[Path]:
    """Write every file that was asked for; the ONNX file that is compared with comes first."""
    model = Classifier(given.model.network, given.model.card).cpu().eval()
    files = [folder / FLOAT]
    if quantized_layers(model.network):
        progress.note(f"{config.model} was quantized: {FLOAT} holds its integers, and no other 8-bit file is made.")
        export_quantized(model, files[0], given.raw_calibration, temperature=temperature)
    else:
        export_onnx(model, files[0], opset=config.opset, temperature=temperature)
        if config.int8:
            files.append(folder / INT8)
            quantize_int8(files[0], files[1], given.raw_calibration)
    if "openvino" in config.to:
        for exported in list(files):
            files.append(exported.with_suffix(".xml"))
            to_openvino(exported, files[-1])
    if "executorch" in config.to:
        files.append(folder / "model.pte")
        to_executorch(model, files[-1])
    return files


def _golden(config: ExportStageConfig, given: Given, files: list[Path], folder: Path) -> None:
    """Take validation images of as many classes as there are places, the first of each class."""
    manifest = given.data.manifest
    rows = manifest.rows("validation", labelled=True)
    turn = [int((manifest.label[rows[:position]] == manifest.label[row]).sum()) for position, row in enumerate(rows)]
    rows = rows[np.argsort(turn, kind="stable")[: config.golden]]
    images = given.model.resize(given.data.loader().clean_batch(rows).image).clamp(0, 1)
    labels = [manifest.classes[label] for label in manifest.label[rows]]
    write_golden(folder, images, labels, {file.name: open_exported(file) for file in files})


def _measured(given: Given, files: list[Path], folder: Path) -> dict[str, Any]:
    """Return for each file what it says of the test split against the network, its bytes and its latencies."""
    models = {"network": given.model, **{file.name: open_exported(file) for file in files}}
    identities = {"network": given.model.card.weights_sha256, **{file.name: sha256(file) for file in files}}
    logits = test_split.open_test(models, identities, given.data, folder / "evaluation")
    manifest = given.data.manifest
    label = manifest.label[manifest.rows("test", labelled=True)]
    network = logits["network"]
    classes = manifest.classes
    figures = {"network": measured(network, label, classes=classes)}
    latencies = _latencies(files)
    for file in files:
        figures[file.name] = {
            **measured(logits[file.name], label, classes=classes, reference=network),
            "file": file.name,
            "bytes": sum(part.stat().st_size for part in _parts(file)),
            "sha256": identities[file.name],
            "latency": latencies[file.name],
        }
    return figures


def _parts(file: Path) -> list[Path]:
    """Return a file and the one with its weights, where they are apart."""
    return [file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file]


def _latencies(files: list[Path]) -> dict[str, list[dict[str, Any]]]:
    """Time all files in turns; `speed_up` is against the first, in the same turns."""
    told: dict[str, list[dict[str, Any]]] = {file.name: [] for file in files}
    with progress.task("latency", total=len(TIMED)) as task:
        for batch, threads in TIMED:
            # ExecuTorch takes the cores it likes.
            timed = [file for file in files if threads == 0 or file.suffix != ".pte"]
            results = latency_ms(timed, batch=batch, threads=threads)
            for file, one in zip(timed, results, strict=True):
                figures = {key: round(value, 4) for key, value in one.to_json().items()}
                told[file.name].append({**figures, "speed_up": round(results[0].median_ms / one.median_ms, 3)})
            cores = plural(threads, "thread") if threads else "all threads"
            task.advance(text=f"{plural(batch, 'image')}, {cores}")
    return told


def recommended(told: dict[str, Any]) -> dict[str, str]:
    """Return the file to take and why: the fastest for one image among those that are not measurably worse.

    A file that is slower than the first (the float one) is never recommended.
    """
    first, *others = [name for name in told if name != "network"]
    chosen, speed = first, 1.0
    for name in others:
        row = told[name]
        faster = row["latency"][0]["speed_up"] if row["latency"][0]["threads"] == 1 else 0.0
        worse = row["lost"] > 0 and row["p"] < WORSE
        if faster <= 1:
            progress.note(f"{name} is slower than {first} here (one image, one thread): {faster:.2f} times as fast.")
        elif worse:
            progress.note(f"{name} is measurably less accurate: {row['lost']:.2f} points lost (p {row['p']:.3g}).")
        elif faster > speed:
            chosen, speed = name, faster
    because = (
        f"{speed:.2f} times as fast as {first} for one image on one thread, and not measurably less accurate"
        if chosen != first
        else "no other file is faster and as accurate"
    )
    return {"file": chosen, "because": because}
