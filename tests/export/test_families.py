"""Families that are built unlike a plain CNN survive export and 8 bits: attention, gates, branches, own padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm import create_model
from torch import Tensor, nn
from torch.nn import functional

from potstill.exporters import export_onnx, parity, quantize_int8
from potstill.model_files.onnx import OnnxModel
from potstill.models import zoo
from potstill.models.outputs import Classifier
from tests.models.families import SMALL, small

from . import nets

TIMM: dict[str, dict[str, Any]] = {
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
    "tf_mobilenetv3_small_minimal_100": {},
    "xception41": {
        "block_cfg": [
            {"in_chs": 64, "out_chs": 32, "stride": 2},
            {"in_chs": 32, "out_chs": 48, "stride": 2},
            {"in_chs": 48, "out_chs": (48, 64, 96), "stride": 1, "no_skip": True, "start_with_relu": False},
        ]
    },
}
FAMILIES = ("vgg", "resnet", "inception", "mobilenet", "vit")
IMAGES = 24
DEEP = {"inception": 0.6, "mobilenet": 0.5, "tf_mobilenetv3_small_minimal_100": 0.4}
"""How far these may be off: many layers of random weights blow up any change; 8-bit images alone, a tenth."""


def grown(name: str) -> tuple[Classifier, Tensor]:
    """Return a classifier whose BatchNorm has seen the images, so that its answers differ, and these images."""
    if name in FAMILIES:
        classifier, size = small(name), SMALL[name][1]
    else:
        size = 32
        with zoo.seeded(0):
            classifier = Classifier(create_model(name, num_classes=3, **TIMM[name]), nets.card((size, size)))
    image = patterns(IMAGES, size)
    for module in classifier.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.3 if name in DEEP else 1.0
    with torch.no_grad():
        classifier.train()(image)
    return classifier.eval(), image


def patterns(count: int, size: int) -> Tensor:
    """Return images that differ as much as images can: large patches of any colour."""
    patches = torch.rand((count, 3, 3, 3), generator=torch.Generator().manual_seed(0)).round()
    return functional.interpolate(patches, (size, size), mode="bilinear").clamp(0, 1)


@pytest.mark.parametrize("name", [*TIMM, *FAMILIES])
def test_parity_in_float_and_in_8_bits(name: str, tmp_path: Path) -> None:
    """Distances are shares of what the logits differ by from image to image; a file of nonsense is off by 1 or more."""
    classifier, image = grown(name)
    with torch.no_grad():
        said = classifier(image).logits
    spread = float(said.std(0).mean())
    export_onnx(classifier, tmp_path / "float.onnx")
    exact = parity(classifier, OnnxModel(tmp_path / "float.onnx"), image.split(8))
    assert exact["max_logit_difference"] < 2e-3 * spread and exact["agreement"] == 100
    quantize_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", image.numpy())
    off = (OnnxModel(tmp_path / "int8.onnx")(image).logits - said).square().mean().sqrt() / spread
    assert 1e-4 < off < DEEP.get(name, 0.25)
