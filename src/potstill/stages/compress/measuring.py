"""The files of a pruned or quantized model, loaded again and measured against the original."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from potstill.artifacts import sha256
from potstill.compress.quantize import quantized_layers
from potstill.evaluation.measured import measured
from potstill.evaluation.shipping import Candidate, against, dominates
from potstill.model_files.latency import from_photo, latency_ms
from potstill.model_files.packed import load_packed
from potstill.model_files.runtimes import Exported, open_exported
from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier
from potstill.stages import rejection, test_split
from potstill.stages.compress.common import CompressionSetup
from potstill.stages.examples import Reference
from potstill.stages.shipped import Delivered, Gain, shipped
from potstill.stages.target import device_figures, with_device_figures


def measured_files(
    networks: Mapping[str, Classifier], files: Mapping[str, Path], setup: CompressionSetup, folder: Path
) -> dict[str, Any]:
    """Evaluate the test split once for all files; return `models`, `ship` and the figures behind (docs/summary.md).

    files: loaded and run; the others are compared with the first, the original. networks: from which the files were
    made, for parameters and multiply-accumulates. The latency of ONNX files is measured (one image, one thread): of
    the network, and from a photo where the file takes photos.
    """
    original, *others = files
    device = {original: device_figures(files[original])}
    for name in [name for name in others if files[name].suffix == ".onnx"]:
        rejection.file_with_threshold(files[name], setup.data, setup.precision)
        device[name] = with_device_figures(files[name], bits=_commonest_bits(networks[name]))
    models = {name: _read_back(file) for name, file in files.items()}
    identities = {name: sha256(file) for name, file in files.items()}
    logits = test_split.open_test(models, identities, setup.data, folder / "evaluation")
    label, classes = setup.test_label, setup.data.manifest.classes
    timed = {name: file for name, file in files.items() if file.suffix == ".onnx"}
    latency = dict(zip(timed, latency_ms(list(timed.values())), strict=True))
    figures = {}
    for name, file in files.items():
        counted = cost(networks[name].cpu().network, setup.example)
        figures[name] = {
            "file": file.name,
            "bytes": file.stat().st_size,
            "parameters": counted.params,
            "macs": counted.total_macs,
            **measured(logits[name], label, classes=classes, reference=logits[original]),
            **rejection.tested(name, models[name], logits[name], label),
            **{key: device[name][key] for key in ("flash", "ram") if name in device},
        }
        if name in latency:
            figures[name] |= {"latency_ms": round(latency[name].median_ms, 4), **from_photo(file)}
    return {"models": figures, **_shipped(figures, logits, setup, folder)}


def _shipped(
    figures: Mapping[str, Any], logits: Mapping[str, np.ndarray], setup: CompressionSetup, folder: Path
) -> dict[str, Any]:
    """Return what is shipped, compared with the original: the ONNX file that was made, or else the packed one."""
    original, *made = figures
    role = next((name for name in reversed(made) if "latency_ms" in figures[name]), made[-1])
    file, before = _candidate(figures[role]), _candidate(figures[original])
    dominated = "latency_ms" in figures[role] and dominates(before, file)
    better, others = before.name if dominated else "", {before.name: against(before, file)}
    one = Delivered(
        role,
        file.name,
        logits[role],
        file.bytes,
        file.latency_ms,
        others=others,
        dominated_by=better,
        card=setup.model.card,
    )
    gains = [Gain(f"{name}, against the original", logits[original], logits[name]) for name in made]
    return shipped(one, setup.data.manifest, folder, Reference(original, logits[original]), gains=gains)


def _candidate(row: Mapping[str, Any]) -> Candidate:
    return Candidate(row["file"], row["bytes"], row.get("latency_ms"), row["lost"], row["p"])


def _commonest_bits(model: Classifier) -> int | None:
    """Return the bits that most quantized layers have; None without quantized layers."""
    bits = Counter(layer.weight_quantizer.bits for layer in quantized_layers(model.network).values())
    return bits.most_common(1)[0][0] if bits else None


def _read_back(file: Path) -> Exported | Classifier:
    return open_exported(file) if file.suffix == ".onnx" else load_packed(file)
