"""Files for other runtimes than onnxruntime: OpenVINO (Intel processors) and ExecuTorch (phones, boards).

Both are optional. OpenVINO takes the ONNX file, in float or in 8 bits; ExecuTorch takes the network.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import onnx
import torch

from potstill import artifacts
from potstill.errors import ModelError
from potstill.exporters.onnx_float import Graph
from potstill.exporters.quiet import quiet
from potstill.model_files.onnx import CARD
from potstill.model_files.runtimes import require
from potstill.models.outputs import Classifier


def to_openvino(exported: Path, out: Path) -> None:
    """Write an ONNX file of potstill as OpenVINO's pair `out` (.xml) and .bin, weights as they are, card inside.

    Raises `ModelError` where OpenVINO is not installed, or has no operator that the file needs.
    """
    require("openvino")
    import openvino

    metadata = {prop.key: prop.value for prop in onnx.load(exported, load_external_data=False).metadata_props}
    with tempfile.TemporaryDirectory(prefix="potstill-openvino-") as folder, quiet():
        try:
            model = openvino.convert_model(exported)
        except Exception as error:  # OpenVINO raises classes of its own, one for each operator
            raise ModelError(f"OpenVINO cannot take {exported}: {str(error).strip().splitlines()[-1][:300]}") from error
        model.set_rt_info(metadata[CARD], ["potstill", "card"])
        openvino.save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        # The description comes last: without it the weights are nobody's.
        for part in (out.with_suffix(".bin"), out):
            with artifacts.atomic(part) as temporary:
                shutil.copyfile(Path(folder) / f"model{part.suffix}", temporary)


def to_executorch(classifier: Classifier, out: Path) -> None:
    """Write a classifier as ExecuTorch's `out` (.pte) for one image at a time, with XNNPACK; the card beside it.

    Raises `ModelError` where ExecuTorch is not installed or cannot take the network.
    """
    require("executorch")
    with quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        card = classifier.card
        example = torch.full((1, card.channels, *card.size), 0.5)
        try:
            program = torch.export.export(Graph(classifier), (example,))
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        except Exception as error:  # whatever the network does may be raised here
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ModelError(f"ExecuTorch cannot take {card.model}: {first[:300]}") from error
    artifacts.write_json(out.with_suffix(".card.json"), card.to_json())
    with artifacts.atomic(out) as temporary:
        temporary.write_bytes(lowered.buffer)
