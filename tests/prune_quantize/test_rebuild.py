"""Pruned and quantized networks of every family come back from their folder and their packed file as they were."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from potstill.compress import prune, quantize
from potstill.errors import ModelError
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.packed import load_packed, packed
from potstill.models import zoo
from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier
from tests.models.families import SMALL, small

pytestmark = pytest.mark.slow

PRUNABLE = ("vgg", "resnet", "mobilenet", "builtin")


def image(classifier: Classifier) -> torch.Tensor:
    shape = (2, classifier.card.channels, *classifier.card.size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def marked(classifier: Classifier, network: torch.nn.Module, kind: str) -> Classifier:
    return Classifier(network, classifier.card.replace(compressed={kind: {}})).eval()


def same(one: Classifier, other: Classifier) -> None:
    seen = image(one)
    with torch.inference_mode():
        torch.testing.assert_close(other(seen).logits, one(seen).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", PRUNABLE)
def test_pruned_networks_come_back(family: str, tmp_path: Path) -> None:
    whole = small(family)
    seen = whole.prepare(image(whole))
    before = cost(whole.network, seen).total_macs
    pruned = marked(whole, prune.inner_channels(whole.network, seen, keep=0.6), "pruned")
    save_model(pruned, tmp_path)
    loaded = load_model(tmp_path)
    same(pruned, loaded)
    assert cost(loaded.network, seen).total_macs <= 0.6 * before
    for layer in loaded.network.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.groups > 1:  # depthwise stays depthwise
            assert layer.groups == layer.in_channels == layer.out_channels


@pytest.mark.parametrize("family", [family for family in SMALL if family != "inception"])  # it is large
def test_quantized_networks_come_back(family: str, tmp_path: Path) -> None:
    whole = small(family)
    seen = whole.prepare(image(whole))
    folded = quantize.fold_batchnorm(whole.network, seen)
    network = quantize.quantized(folded, quantize.observe(folded, [seen]), weight_bits=4)
    model = marked(whole, quantize.correct_bias(network, folded, seen), "quantized")
    save_model(model, tmp_path)
    same(model, load_model(tmp_path))
    (tmp_path / "packed").write_bytes(packed(model))
    same(model, load_packed(tmp_path / "packed"))


def test_a_pruned_network_is_quantized_and_comes_back(tmp_path: Path) -> None:
    whole = small("builtin")
    seen = whole.prepare(image(whole))
    smaller = quantize.fold_batchnorm(prune.inner_channels(whole.network, seen, keep=0.5), seen)
    network = quantize.quantized(smaller, quantize.observe(smaller, [seen]))
    model = marked(whole, network, "quantized")
    save_model(model, tmp_path)
    same(model, load_model(tmp_path))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_model(small("builtin"), tmp_path)
    card = (tmp_path / zoo.CARD).read_text()
    save_model(marked(small("builtin"), prune.inner_channels(
        small("builtin").network, torch.rand(2, 3, 16, 16), keep=0.5), "pruned"), tmp_path)  # fmt: skip
    (tmp_path / zoo.CARD).write_text(card)
    with pytest.raises(ModelError):
        load_model(tmp_path)
