"""Families that are built unlike a plain CNN survive export and 8 bits: attention, gates, padding of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm import create_model

from potstill.compress.export import export_onnx, parity, quantize_int8
from potstill.models import zoo
from potstill.models.onnx import OnnxModel
from potstill.models.outputs import Classifier
from tests.models.families import SMALL, small

from . import nets

TRANSFER = ("vgg", "resnet", "inception", "xception", "mobilenet", "vit")

TIMM = {
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
    "tf_mobilenetv3_small_minimal_100": {},
}


def grown(name: str) -> tuple[Classifier, torch.Tensor]:
    """Return a classifier whose answers differ from image to image, and images."""
    if name in SMALL:
        classifier, size = small(name), SMALL[name][1]
    else:
        size = 32
        with zoo.seeded(0):
            classifier = Classifier(create_model(name, num_classes=3, **TIMM[name]), nets.card((size, size)))
    image = nets.images(48, size=(size, size))
    with torch.no_grad():
        classifier.train()(image)
    return classifier.eval(), image


@pytest.mark.parametrize("name", [*TIMM, *TRANSFER])
def test_parity_in_float_and_in_8_bits(name: str, tmp_path: Path) -> None:
    """Largest differences, as shares of what the logits differ by from image to image."""
    classifier, image = grown(name)
    with torch.no_grad():
        spread = float(classifier(image).logits.std(0).mean())
    export_onnx(classifier, tmp_path / "float.onnx")
    said = parity(classifier, OnnxModel(tmp_path / "float.onnx"), image.split(16))
    assert said["max_logit_difference"] < 1e-3 * spread
    quantize_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", image.numpy())
    said = parity(classifier, OnnxModel(tmp_path / "int8.onnx"), image.split(16))
    assert 1e-4 * spread < said["max_logit_difference"] < 0.5 * spread and said["label_agreement"] >= 90
