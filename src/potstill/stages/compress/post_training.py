"""Post-training quantization of a network: ranges, bits of each layer, rounding."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from potstill.compress import quantize as quantizing
from potstill.compress.quantize import Histogram, Reconstruction
from potstill.errors import ConfigError
from potstill.exporters.onnx_low_bit import export_quantized
from potstill.model_files.onnx_input import InputForm
from potstill.model_files.packed import packed
from potstill.model_files.rebuild import rebuilt
from potstill.models.inspect.plain_layers import has_depthwise, plain_layers
from potstill.models.outputs import Classifier
from potstill.stages.compress.common import CompressionSetup
from potstill.stages.compress.quantize_config import Methods, QuantizeConfig
from potstill.training import engine

CORRECTED = 256  # calibration images for bias correction
SENSED = 64  # calibration images for the sensitivity of layers
METADATA, WIDTH, LAYER = 700, 1400, 40
"""Bytes of an ONNX file: for metadata that is added later, for the operators of other widths, and for each layer."""


def calibrated(config: QuantizeConfig, setup: CompressionSetup) -> tuple[nn.Module, Classifier, dict[str, int]]:
    """Return the folded float network, the quantized classifier, and the bits of each layer."""
    floating = quantizing.fold_batchnorm(setup.model.network, setup.example)
    methods = config.methods(floating)
    if config.equalize:
        floating = quantizing.equalize(floating, setup.example)
    observed = quantizing.observe(floating, setup.calibration.split(64))
    network = quantizing.quantized(floating, observed, **_settings(config, methods))
    card, kind = setup.model.card, {"weight_bits": config.weight_bits, "activation_bits": config.activation_bits}
    card = card.replace(compressed={**card.compressed, "quantized": {**kind, "mode": config.mode}})
    if config.max_bytes:
        chosen = _mixed(config, setup, floating, observed, _room(config, setup, Classifier(network, card)))
        network = quantizing.quantized(floating, observed, **_settings(config, methods), layer_bits=chosen)
    if methods.correct_bias:
        network = quantizing.correct_bias(network, floating, setup.calibration[:CORRECTED])
    bits = {name: layer.weight_quantizer.bits for name, layer in quantizing.quantized_layers(network).items()}
    model = Classifier(network, card).eval()
    return floating, _reconstructed(config, setup, floating, model) if methods.reconstructs else model, bits


def _reconstructed(
    config: QuantizeConfig, setup: CompressionSetup, floating: nn.Module, start: Classifier
) -> Classifier:
    """Return the quantized classifier, rounded by reconstruction, on the grids of its activations if they are narrow.

    Ranges of 8 bits are calibrated afterwards, as after training: in a step they would only cost time.
    """
    together = config.activation_bits is None or config.methods(floating).learn_activations
    student = start if together else without_inputs(start)
    network = quantizing.reconstruct(student.network, floating, setup.calibration, Reconstruction(seed=config.seed))
    model = Classifier(network, start.card).eval()
    return model if together else with_inputs(config, setup, floating, model)


def _settings(config: QuantizeConfig, methods: Methods) -> dict[str, Any]:
    return {
        "weight_bits": config.weight_bits,
        "activation_bits": config.activation_bits,
        "first_last_bits": config.first_last_bits,
        "weight_method": methods.weight_steps,
        "activation_method": methods.calibrate,
    }


def _room(config: QuantizeConfig, setup: CompressionSetup, model: Classifier) -> int:
    """Return the bytes that are left for the codes in the largest file.

    Raises `ConfigError` if there are none.
    """
    assert config.max_bytes is not None, "bits differ by layer only then"
    beside = packed_beside(model)
    if config.writes_onnx:
        beside = max(beside, onnx_beside(model, setup.raw_calibration[:CORRECTED], config.input))
    if beside >= config.max_bytes:
        raise ConfigError(
            f"max_bytes is {config.max_bytes:,}, but the file needs {beside:,} without any weights: steps, biases, "
            "graph and metadata. Allow more bytes, prune first, or use --input prepared."
        )
    return config.max_bytes - beside


def packed_beside(model: Classifier) -> int:
    """Return the bytes of a packed file without the codes: steps, biases, head, and a byte per layer for rounding."""
    return len(packed(model)) - quantizing.packed_bytes(model) + len(quantizing.quantized_layers(model))


def onnx_beside(model: Classifier, calibration: np.ndarray, input: InputForm) -> int:
    """Return the bytes of an ONNX file without the codes, with reserve for the operators that unpack other widths."""
    with tempfile.TemporaryDirectory(prefix="potstill-size-") as folder:
        export_quantized(model, Path(folder) / "model.onnx", calibration, input=input)
        size = (Path(folder) / "model.onnx").stat().st_size
    codes = quantizing.packed_bytes(model)
    return size - codes + METADATA + WIDTH + LAYER * len(quantizing.quantized_layers(model))


def _mixed(
    config: QuantizeConfig, setup: CompressionSetup, floating: nn.Module, observed: Mapping[str, Histogram], room: int
) -> dict[str, int]:
    """Choose the bits of each layer by how far they move the logits, so that the codes have `room` bytes."""
    images, method = setup.calibration[:SENSED], config.methods(floating).weight_steps
    rises = quantizing.sensitivity(floating, observed, images, weight_method=method)
    weights = {name: layer.weight.numel() for name, layer in plain_layers(floating).items()}
    return quantizing.allocate(rises, weights, max_bytes=room)


def without_inputs(model: Classifier) -> Classifier:
    """Return a copy whose layers quantize their weights only."""
    model = engine.clone(model)
    for layer in quantizing.quantized_layers(model).values():
        layer.input_quantizer = None
    return model


def with_inputs(
    config: QuantizeConfig, setup: CompressionSetup, floating: nn.Module, trained: Classifier
) -> Classifier:
    """Return the trained classifier with activation ranges calibrated on its quantized weights.

    Biases are corrected for the shift of rounding activations in a network with depthwise layers, which are sensitive.
    """
    methods = config.methods(floating)
    rounded = engine.clone(trained).network
    for layer in quantizing.quantized_layers(rounded).values():
        layer.weight.data = layer.weight_quantizer(layer.weight).detach()
    plain = rebuilt(floating, quantizing.float_state(rounded.state_dict()), setup.example)
    observed = quantizing.observe(plain, setup.calibration.split(64))
    ranged = quantizing.quantized(
        plain,
        observed,
        activation_bits=config.activation_bits,
        first_last_bits=config.first_last_bits,
        activation_method=methods.calibrate,
    )
    inputs = {name: layer.input_quantizer for name, layer in quantizing.quantized_layers(ranged).items()}
    for name, layer in quantizing.quantized_layers(trained.network).items():
        layer.input_quantizer = inputs[name]
    if config.correct_bias is not False and has_depthwise(floating):
        corrected = quantizing.correct_bias(trained.network, plain, setup.calibration[:CORRECTED])
        return Classifier(corrected, trained.card).eval()
    return trained.eval()
