"""Families that are built unlike a plain CNN survive export and 8 bits: attention, gates, padding of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from timm import create_model
from torch import nn

from potstill.compress.export import export_onnx, parity, quantize_int8
from potstill.models.onnx import OnnxModel
from potstill.models.outputs import Classifier

from . import nets

FAMILIES = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 24, "num_heads": 2},
    "convnext_atto": {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)},
    "tf_mobilenetv3_small_minimal_100": {},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_parity_in_float_and_in_8_bits(name: str, tmp_path: Path) -> None:
    image = nets.images(48, size=(32, 32))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = create_model(name, num_classes=3, **FAMILIES[name])
        for module in network.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.3)
    classifier = Classifier(network, nets.card((32, 32)))
    with torch.no_grad():
        classifier.train()(image)
        span = float(classifier.eval()(image).logits.std(0).mean())
    export_onnx(classifier, tmp_path / "float.onnx")
    assert parity(classifier, OnnxModel(tmp_path / "float.onnx"), image.split(16))["max_logit_difference"] < 1e-3 * span
    quantize_int8(tmp_path / "float.onnx", tmp_path / "int8.onnx", image.numpy())
    result = parity(classifier, OnnxModel(tmp_path / "int8.onnx"), image.split(16))
    assert result["max_logit_difference"] < span and result["label_agreement"] >= 85
