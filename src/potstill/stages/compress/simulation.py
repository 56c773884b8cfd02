"""`potstill quantize --simulate`: the accuracy of a model in a number format below 32 bits, on the test split.

No model is written, because no runtime computes in formats such as Q4.4 or e3m2. The folder has the summary and the
test logits.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from potstill import progress
from potstill.compress import quantize as quantizing
from potstill.compress.formats import FloatFormat, IntegerFormat, NumberFormat, ScaledFormat, parse_format
from potstill.compress.formats.describe import facts
from potstill.errors import ConfigError
from potstill.evaluation.measured import measured
from potstill.models.freeze import bits
from potstill.models.inspect.macs import cost
from potstill.models.inspect.plain_layers import other_layers, plain_layers, settle_weights
from potstill.models.outputs import Classifier
from potstill.stages import test_split
from potstill.stages.compress.common import CompressionSetup
from potstill.stages.run_folder import Journal

FORMATS = ("weight_format", "activation_format")
INTEGERS = (
    "weight_bits",
    "activation_bits",
    "first_last_bits",
    "calibrate",
    "weight_steps",
    "rounding",
    "learn_activations",
    "equalize",
    "correct_bias",
    "max_bytes",
)
NARROW = 16  # floating point with fewer bits is scaled


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raise `ValueError` if settings of simulated formats and of integers are mixed."""
    formats = [key for key in FORMATS if settings.get(key) is not None]
    if not settings.get("simulate"):
        if formats:
            raise ValueError(
                f"{' and '.join(formats)}: no runtime computes in such formats, so they are only simulated; add "
                "simulate=true (--simulate)."
            )
        return
    if not formats:
        raise ValueError("simulate: give weight_format or activation_format (--weight-format fixed4.4).")
    mixed = [key for key in INTEGERS if settings.get(key)]
    if settings.get("mode", "ptq") != "ptq":
        mixed.append("mode")
    if mixed:
        raise ValueError(
            f"{', '.join(mixed)}: these are settings of integer quantization, which have no effect with simulate; "
            "leave them out."
        )


WIDEST = 8  # bits of integers in files


def read_format(key: str, text: str) -> NumberFormat:
    """Return the fixed or floating point format of a setting; raise `ValueError` for anything else."""
    try:
        number = parse_format(text)
    except ConfigError as error:
        raise ValueError(f"{key}: {error}") from None
    if isinstance(number, IntegerFormat):
        flag = "--weight-bits" if key == "weight_format" else "--activation-bits"
        if number.bits > WIDEST:
            raise ValueError(
                f"{key}: {text} is an integer, of which files have at most {WIDEST} bits. Simulate a fixed or floating "
                f"point format, such as fixed1.{number.bits - 1}."
            )
        raise ValueError(f"{key}: {text} is an integer; leave out simulate and give {flag} {number.bits}.")
    return number


def simulate(
    weight_format: str | None, activation_format: str | None, setup: CompressionSetup, folder: Path, journal: Journal
) -> dict[str, Any]:
    """Evaluate a model whose layers round their weights and inputs; return the stage's part of the summary.

    BatchNorm is folded into the layers first, as for integers; all convolutions and linear layers have the formats,
    including the first and the last. Sums and biases stay in float32.
    """
    weights = None if weight_format is None else read_format("weight_format", weight_format)
    inputs = None if activation_format is None else read_format("activation_format", activation_format)
    network, layers = journal.timed("calibration", "Fitted the formats", lambda: rounded(setup, weights, inputs))
    _note(weights, inputs, network)
    models = {"original": setup.model, "simulated": Classifier(network, setup.model.card).eval()}
    figures = journal.timed("evaluation", "Evaluated the test split once", lambda: _measured(models, setup, folder))
    return {
        "data": setup.facts,
        "models": figures,
        "formats": {"weights": weights and facts(weights), "activations": inputs and facts(inputs)},
        "layers": layers,
    }


def rounded(
    setup: CompressionSetup, weights: NumberFormat | None, inputs: NumberFormat | None
) -> tuple[nn.Module, dict[str, dict[str, Any]]]:
    """Return the folded network that computes in the formats, and scale and rounding error of each layer."""
    floating = quantizing.fold_batchnorm(setup.model.network, setup.example)
    layers = plain_layers(floating)
    largest = {name: float(layer.weight.detach().abs().max()) for name, layer in layers.items()}
    observed = quantizing.observe(floating, setup.calibration.split(64)) if inputs is not None else {}
    largest_input = {name: max(-histogram.low, histogram.high) for name, histogram in observed.items()}
    of_weights = {} if weights is None else {name: _fitted(weights, largest[name]) for name in layers}
    of_inputs = {} if inputs is None else {name: _fitted(inputs, largest_input.get(name, 0.0)) for name in layers}
    network = quantizing.simulated(floating, weights=of_weights, activations=of_inputs)
    settle_weights(network)  # round once instead of in every forward pass
    records: dict[str, dict[str, Any]] = {name: {} for name in layers}
    for name, number in of_weights.items():
        records[name] |= {"weight_scale": _scale(number), **_loss(layers[name].weight.detach(), number)}
    for name, number in of_inputs.items():
        records[name] |= {"input_scale": _scale(number), "largest_input": largest_input.get(name)}
    return network.eval(), records


def _fitted(number: NumberFormat, largest: float) -> NumberFormat:
    """Return the format, with a scale if it is floating point below 16 bits."""
    if isinstance(number, FloatFormat) and number.bits < NARROW:
        return ScaledFormat.fit(number, largest)
    return number


def _scale(number: NumberFormat) -> float:
    return number.scale if isinstance(number, ScaledFormat) else 1.0


def _loss(weight: Tensor, number: NumberFormat) -> dict[str, float]:
    """Return the relative root mean square error of rounding, and the weights out of range in percent."""
    low, high = number.range
    error = (number.quantize(weight) - weight).square().mean().sqrt() / weight.square().mean().sqrt().clamp_min(1e-30)
    beyond = ((weight < low) | (weight > high)).float().mean()
    return {"weight_error": round(float(error), 6), "weights_saturated": round(100 * float(beyond), 3)}


def _note(weights: NumberFormat | None, inputs: NumberFormat | None, network: nn.Module) -> None:
    named = [
        f"{what} in {one.name}" for what, one in (("weights", weights), ("activations", inputs)) if one is not None
    ]
    progress.note(
        f"Simulated {' and '.join(named)}: no file in these formats is written, and latency is not measured. The "
        "folder has only the summary and is not a model."
    )
    if any(isinstance(one, FloatFormat) and one.bits < NARROW for one in (weights, inputs)):
        progress.note(
            "Floating point below 16 bits is scaled by a power of two per tensor, so that its largest magnitude is "
            "near the end of the range: that of the weight, or of activations on calibration images."
        )
    if left := other_layers(network):
        progress.note(f"Kept in float, because they are not plain layers: {', '.join(left)}.")


def _measured(models: Mapping[str, Classifier], setup: CompressionSetup, folder: Path) -> dict[str, Any]:
    # The folder belongs to its settings, so the formats need not be part of the identity.
    identities = {name: bits(model) for name, model in models.items()}
    logits = test_split.open_test(dict(models), identities, setup.data, folder / "evaluation")
    manifest = setup.data.manifest
    label = manifest.label[manifest.rows("test", labelled=True)]
    counted = cost(setup.model.cpu().network, setup.example)
    shared = {"parameters": counted.params, "macs": counted.total_macs}
    return {
        name: shared | measured(logits[name], label, classes=manifest.classes, reference=logits["original"])
        for name in models
    }
