"""Packed files give back every bit, are as small as claimed, and are read by the reader of the document."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from potstill.compress.quantize import (
    float_state,
    fold_batchnorm,
    observe,
    pack,
    packed_bytes,
    quantized,
    quantized_layers,
    restored,
    unpack,
)
from potstill.compress.quantize.pack import pack_codes, unpack_codes
from potstill.errors import ModelError
from tests.compress.nets import OptionAResNet, family, lived_in, separable

pytestmark = pytest.mark.slow

DOCUMENT = Path(__file__).parents[2] / "docs" / "packed-weights.md"
IMAGE = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("count", [1, 7, 8, 1001])
def test_codes_come_back_and_take_only_their_bits(bits, count):
    codes = np.random.default_rng(0).integers(0, 2**bits, count)
    packed = pack_codes(codes, bits)
    assert packed.nbytes == -(-count * bits // 8)
    assert np.array_equal(unpack_codes(packed, bits, count), codes)


def test_the_order_of_bits_is_the_documented_one():
    packed = pack_codes(np.array([0b101, 0b011, 0b110]), 3)
    assert packed.tolist() == [0b10_011_101, 0b1]


def small(bits: int, activation_bits: int | None = 8) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    model = fold_batchnorm(lived_in(separable()), IMAGE)
    quant = quantized(model, observe(model, [IMAGE]), weight_bits=bits, activation_bits=activation_bits)
    return model, quant.eval()


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("activation_bits", [None, 4, 8])
def test_a_model_comes_back_bit_for_bit(bits, activation_bits):
    model, quant = small(bits, activation_bits)
    state = unpack(pack(quant))
    again = restored(model, state).eval()
    with torch.no_grad():
        assert torch.equal(again(IMAGE), quant(IMAGE))
        for name, layer in quantized_layers(quant).items():
            rounded = layer.weight_quantizer(layer.weight)
            assert torch.equal(state[f"{name}.weight"], rounded)
            assert torch.equal(quantized_layers(again)[name].weight_quantizer(rounded), rounded)
    assert pack(again) == pack(quant)


def test_a_trained_model_with_a_negative_step_comes_back():
    model, quant = small(4)
    with torch.no_grad():
        quant[3].weight_quantizer.step.neg_()
        quant[6].input_quantizer.step.neg_()
        again = restored(model, unpack(pack(quant)))
        assert torch.equal(again(IMAGE), quant(IMAGE))


def test_the_float_part_fits_the_float_model():
    model, quant = small(3, None)
    with torch.no_grad():
        model.load_state_dict(float_state(unpack(pack(quant))))
        torch.testing.assert_close(model(IMAGE), quant(IMAGE))


def test_layers_that_are_not_quantized_are_stored_too():
    model, image = family("vit_tiny")
    quant = quantized(model, observe(model, [image]), skip=["head"], weight_bits=5)
    with torch.no_grad():
        assert torch.equal(restored(model, unpack(pack(quant)))(image), quant(image))


def test_the_reader_of_the_document_reads(tmp_path):
    block = re.search(r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.M | re.S)
    names: dict = {}
    exec(compile(block[1], DOCUMENT.name, "exec"), names)
    _, quant = small(5)
    (tmp_path / "weights.packed").write_bytes(pack(quant, metadata={"classes": '["cat", "dog"]'}))
    read, expected = names["read"](tmp_path / "weights.packed"), float_state(unpack(tmp_path / "weights.packed"))
    assert set(read) == set(expected)
    assert all(np.array_equal(read[name], expected[name].numpy()) for name in read)


@pytest.mark.parametrize(("bits", "most"), [(8, 282_000), (4, 150_000), (2, 84_000)])
def test_a_resnet20_is_as_small_as_the_document_says(bits, most):
    model = fold_batchnorm(OptionAResNet(16, 3).eval(), IMAGE)
    quant = quantized(model, observe(model, [IMAGE]), weight_bits=bits)
    content = pack(quant)
    ends = sum(layer.weight.numel() for layer in (model.conv1, model.linear))
    assert packed_bytes(quant) == (268_336 - ends) * bits // 8 + ends
    channels = sum(layer.weight.shape[0] for layer in quantized_layers(quant).values())
    assert len(content) <= packed_bytes(quant) + 8 * channels + 390 * len(quantized_layers(quant))
    assert len(content) <= most
    assert "134,704" in DOCUMENT.read_text() and "5,584" in DOCUMENT.read_text()
    assert 8 * channels == 5_584
    if bits == 4:
        assert packed_bytes(quant) == 134_704


def test_what_is_packed_along_stays_readable():
    content = pack(small(4)[1], metadata={"card": "{}"})
    head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    assert json.loads(head["potstill-packed-weights"])["metadata"] == {"card": "{}"}


def test_other_files_are_refused(tmp_path):
    (tmp_path / "noise").write_bytes(b"nothing of the kind")
    with pytest.raises(ModelError, match="noise: not readable as safetensors"):
        unpack(tmp_path / "noise")
    with pytest.raises(ModelError, match="not a file of packed weights"):
        unpack(save({"a": torch.zeros(1)}))
    with pytest.raises(ModelError, match="of version 7, but this version of potstill reads version 1"):
        unpack(save({}, {"potstill-packed-weights": '{"version": 7}'}))
    with pytest.raises(ModelError, match="no quantized layers to pack"):
        pack(nn.Linear(2, 2))
