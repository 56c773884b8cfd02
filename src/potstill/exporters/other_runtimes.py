"""Export for runtimes other than onnxruntime: OpenVINO (Intel processors) and ExecuTorch (phones, boards).

Both are optional. OpenVINO converts the ONNX file, in float or int8; ExecuTorch converts the network.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import onnx
import torch

from potstill import artifacts
from potstill.errors import ModelError
from potstill.exporters.onnx_file import read_prepared
from potstill.exporters.onnx_float import Graph
from potstill.exporters.quiet import quiet
from potstill.model_files.onnx_input import CARD, TEMPERATURE
from potstill.model_files.runtimes import require
from potstill.models.outputs import Classifier


def to_openvino(exported: Path, out: Path) -> Path:
    """Convert an ONNX file of potstill to OpenVINO's pair `out` (.xml) and .bin, with unchanged weights and the card.

    The pair takes the prepared input, float32 [batch, C, H, W] in 0..1.

    Returns `out`. Raises `ModelError` if OpenVINO is not installed, or does not support an operator of the file.
    """
    require("openvino")
    import openvino  # pyright: ignore[reportMissingImports]  # optional

    source = read_prepared(exported)
    metadata = {prop.key: prop.value for prop in source.metadata_props}
    with tempfile.TemporaryDirectory(prefix="potstill-openvino-") as folder, quiet():
        plain = Path(folder) / "prepared.onnx"
        onnx.save(source, plain)
        try:
            model = openvino.convert_model(plain)
        except Exception as error:  # OpenVINO has a separate error class for each operator
            reason = str(error).strip().splitlines()[-1][:300]
            raise ModelError(f"OpenVINO cannot convert {exported}: {reason}") from error
        for key in {CARD, TEMPERATURE} & metadata.keys():
            model.set_rt_info(metadata[key], key.split("."))
        openvino.save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        # The .xml is written last, because it marks the pair as complete.
        for part in (out.with_suffix(".bin"), out):
            with artifacts.atomic(part) as temporary:
                shutil.copyfile(Path(folder) / f"model{part.suffix}", temporary)
    return out


def to_executorch(classifier: Classifier, out: Path, *, temperature: float | None = None) -> None:
    """Write a classifier as an ExecuTorch file `out` (.pte) with batch size 1 and XNNPACK, and its card next to it.

    temperature: of calibration; it stands in the same file as the card.

    Raises `ModelError` if ExecuTorch is not installed or does not support the network.
    """
    require("executorch")
    with quiet():
        # optional
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import (  # pyright: ignore[reportMissingImports]
            XnnpackPartitioner,
        )
        from executorch.exir import to_edge_transform_and_lower  # pyright: ignore[reportMissingImports]

        card = classifier.card
        example = torch.full((1, card.channels, *card.size), 0.5)
        try:
            program = torch.export.export(Graph(classifier), (example,))
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        except Exception as error:  # the network may raise anything
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"ExecuTorch cannot convert {card.model}: {first[:300]}") from error
    calibration = {} if temperature is None else {"temperature": temperature}
    artifacts.write_json(out.with_suffix(".card.json"), card.to_json() | calibration)
    with artifacts.atomic(out) as temporary:
        temporary.write_bytes(lowered.buffer)
