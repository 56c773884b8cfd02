"""Generated C in an export: written, compiled on this machine, and run on images of the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from potstill import progress
from potstill.artifacts import sha256
from potstill.errors import ModelError
from potstill.evaluation.measured import measured, parity
from potstill.exporters import c_source, gate
from potstill.model_files.c_code import CModel, compiler_version
from potstill.model_files.onnx import OnnxModel
from potstill.stages import test_split
from potstill.stages.compress.common import CompressionSetup

IMAGES = 500
"""Test images on which compiled code runs: plain loops are slow."""
GATED = 32
"""Validation images on which it is compared with its ONNX file before that."""


def compiled(setup: CompressionSetup, exported: Sequence[Path], logits: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Write C for each ONNX file beside it, run it, and return its figures by file name.

    logits: [N, K] of the network and of each ONNX file, for the whole test split.
    Raises `ModelError` if code does not compile, or differs from onnxruntime; it is not kept then.
    """
    figures = {}
    with progress.task("Running compiled code", total=len(exported)) as task:
        for file in exported:
            source = file.with_suffix(".c")
            try:
                figures[source.name] = _figures(setup, file, source, logits)
            except ModelError:
                for part in (source, source.with_suffix(".h")):
                    part.unlink(missing_ok=True)
                raise
            task.advance(text=source.name)
    return figures


def _figures(setup: CompressionSetup, exported: Path, source: Path, logits: Mapping[str, np.ndarray]) -> dict[str, Any]:
    arena = c_source.to_c(exported, source)
    model = CModel(source, setup.model.card, arena)
    gate.check_quantized(source, OnnxModel(exported), setup.gated[:GATED], opened=model)
    manifest = setup.data.manifest
    rows = manifest.rows("test", labelled=True)
    some = np.unique(np.linspace(0, len(rows) - 1, min(IMAGES, len(rows))).round().astype(int))
    own = test_split.clean_logits(model, setup.data, rows[some])
    same = parity(own, logits[exported.name][some])
    if model.warnings:
        progress.note(f"{source.name} compiles with {model.warnings} warnings of {compiler_version()}.")
    parts = (source, source.with_suffix(".h"))
    return {
        **measured(
            own,
            setup.data.manifest.label[rows[some]],
            classes=setup.data.manifest.classes,
            reference=logits["network"][some],
        ),
        "file": source.name,
        "bytes": sum(part.stat().st_size for part in parts),
        "sha256": sha256(source),
        "compiled": {
            "compiler": compiler_version(),
            "warnings": model.warnings,
            "flash": model.flash,
            "memory": arena,
            "onnxruntime": same,
        },
    }
