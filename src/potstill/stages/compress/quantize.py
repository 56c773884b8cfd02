"""`potstill quantize`: post-training quantization and quantization-aware training, and the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from potstill import artifacts, progress
from potstill.compress import quantize as quantizing
from potstill.compress.quantize import Histogram
from potstill.compress.quantize.ranges import ActivationMethod, WeightMethod
from potstill.config import Bytes
from potstill.errors import ConfigError, ModelError
from potstill.exporters import export_onnx, gate
from potstill.exporters.onnx_low_bit import export_quantized
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.packed import load_packed, packed
from potstill.model_files.rebuild import rebuilt
from potstill.models.inspect.plain_layers import plain_layers
from potstill.models.outputs import Classifier
from potstill.stages.compress import simulation
from potstill.stages.compress.common import (
    CompressConfig,
    CompressionSetup,
    measured_files,
    open_model,
    recover,
    teacher_of,
    validation_accuracy,
    warn_of_slow,
)
from potstill.stages.run_folder import Journal
from potstill.stages.stage import stage
from potstill.stages.teacher.prepared import TeacherSource
from potstill.training import engine
from potstill.training.settings import TrainConfig

BEFORE, ONNX, PACKED = "original.onnx", "model.onnx", "model.packed.safetensors"
CORRECTED = 256  # calibration images for bias correction


class QuantizeConfig(CompressConfig):
    """Bit widths, calibration, and training."""

    weight_bits: int = Field(default=8, ge=2, le=8, description="bits of weights")
    activation_bits: int | None = Field(default=8, ge=2, le=8, description="bits of activations; null: float")
    first_last_bits: int | None = Field(
        default=8, ge=2, le=8, description="bits of the first and last layer; null: as the other layers"
    )
    mode: Literal["ptq", "qat"] = Field(
        default="ptq", description="post-training quantization or quantization-aware training"
    )
    calibrate: Literal["auto", "minmax", "percentile", "mse", "entropy"] = Field(
        default="auto", description="calibration of activation ranges; auto: minmax for 8 bits, mse below"
    )
    weight_steps: Literal["auto", "absmax", "mse", "lsq"] = Field(
        default="auto", description="step sizes of weights; auto: absmax, or lsq for 2-bit training"
    )
    learn_activations: bool | None = Field(
        default=None, description="quantize activations during training; null: only below 8 bits"
    )
    equalize: bool = Field(default=False, description="cross-layer equalization")
    correct_bias: bool | None = Field(default=None, description="bias correction; null: below 6 bits")
    max_bytes: Bytes | None = Field(
        default=None, description="maximum bytes of the packed file; bits then differ by layer"
    )
    weight_format: str | None = Field(
        default=None, description="simulated format of weights: fixed4.4, e4m3, fp16, ...; null: float"
    )
    activation_format: str | None = Field(default=None, description="simulated format of the inputs of layers")
    simulate: bool = Field(default=False, description="evaluate these formats without writing a model")
    train: TrainConfig = TrainConfig(epochs=1, optimizer="adamw", lr=0.0005, weight_decay=0)

    @model_validator(mode="before")
    @classmethod
    def _either_bits_or_formats(cls, settings: Any) -> Any:
        """Reject settings of integers together with simulated formats."""
        if isinstance(settings, dict):
            simulation.check_settings(settings)
        return settings

    @model_validator(mode="after")
    def _fits(self) -> QuantizeConfig:
        for key, text in (("weight_format", self.weight_format), ("activation_format", self.activation_format)):
            if text is not None:
                simulation.read_format(key, text)
        if self.train.weight_decay:
            raise ValueError("train.weight_decay must be 0: decay would shrink the learned step sizes.")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the resolved settings as plain JSON types, without those that have no effect in a simulation."""
        settings = super().to_json()
        return {key: settings[key] for key in settings if not (self.simulate and key in simulation.INTEGERS)}

    @property
    def activation_method(self) -> ActivationMethod:
        """The calibration of activation ranges."""
        return ("minmax" if self.activation_bits == 8 else "mse") if self.calibrate == "auto" else self.calibrate

    @property
    def weight_method(self) -> WeightMethod:
        """The choice of the step sizes of weights."""
        if self.weight_steps != "auto":
            return self.weight_steps
        return "lsq" if self.mode == "qat" and self.weight_bits == 2 else "absmax"

    @property
    def learns_activations(self) -> bool:
        """Whether activations are quantized during training, which makes a step several times slower."""
        few = self.activation_bits is not None and self.activation_bits < 8
        return few if self.learn_activations is None else self.learn_activations

    @property
    def corrects_bias(self) -> bool:
        """Whether biases are corrected for the shift of rounding."""
        return self.weight_bits < 6 if self.correct_bias is None else self.correct_bias


def quantize(config: QuantizeConfig, folder: Path, *, stores: Path | None = None, command: str = "") -> dict[str, Any]:
    """Write the quantized model and its files into `folder` and return the summary.

    model.packed.safetensors has the weights packed in their bits. So has model.onnx, which is written if activations
    have 8 bits or are float, and runs in 8 bits. Accuracy is that of the files, loaded again. With `simulate` only the
    summary is written. An interrupted call with the same settings is resumed.
    """
    return stage(
        "quantize",
        config,
        folder,
        lambda journal: _carry_out(config, folder, stores, journal),
        name=folder.name,
        command=command,
    )


def _carry_out(config: QuantizeConfig, folder: Path, stores: Path | None, journal: Journal) -> dict[str, Any]:
    setup = journal.timed("data", "Read the model and the images", lambda: open_model(config))
    if "quantized" in setup.model.card.compressed:
        raise ModelError(f"{config.model} is already quantized. Give the model that it was made from.")
    if config.simulate:
        return simulation.simulate(config.weight_format, config.activation_format, setup, folder, journal)
    export_onnx(setup.model, folder / BEFORE, input=config.input)  # before the work, so that it fails early
    gate.check_float(folder / BEFORE, setup.model, setup.gated)
    floating, start, bits = journal.timed("calibration", "Calibrated and quantized", lambda: calibrated(config, setup))
    record = {"validation_calibrated": validation_accuracy(start, setup)}
    if config.mode == "qat":
        quantized = start
        start, trained = journal.timed(
            "training",
            "Quantization-aware training",
            lambda: learned(config, setup, floating, quantized, folder / "trained", teacher_of(setup, folder, stores)),
        )
        record |= trained
    save_model(start, folder)
    files = _files(config, setup, start, folder)
    networks = {"original": setup.model, **dict.fromkeys(list(files)[1:], start)}
    figures = journal.timed(
        "evaluation", "Evaluated the test split once", lambda: measured_files(networks, files, setup, folder)
    )
    warn_of_slow(figures)
    return _summary(config, setup, figures, record, bits)


def calibrated(config: QuantizeConfig, setup: CompressionSetup) -> tuple[nn.Module, Classifier, dict[str, int]]:
    """Return the folded float network, the quantized classifier, and the bits of each layer."""
    floating = quantizing.fold_batchnorm(setup.model.network, setup.example)
    if config.equalize:
        floating = quantizing.equalize(floating, setup.example)
    observed = quantizing.observe(floating, setup.calibration.split(64))
    network = quantizing.quantized(floating, observed, **_settings(config))
    card, kind = setup.model.card, {"weight_bits": config.weight_bits, "activation_bits": config.activation_bits}
    card = card.replace(compressed={**card.compressed, "quantized": {**kind, "mode": config.mode}})
    if config.max_bytes:
        room = config.max_bytes - packed_beside(Classifier(network, card))
        chosen = _mixed(config, setup, floating, observed, room)
        network = quantizing.quantized(floating, observed, **_settings(config), layer_bits=chosen)
    if config.corrects_bias:
        network = quantizing.correct_bias(network, floating, setup.calibration[:CORRECTED])
    bits = {name: layer.weight_quantizer.bits for name, layer in quantizing.quantized_layers(network).items()}
    return floating, Classifier(network, card).eval(), bits


def _settings(config: QuantizeConfig) -> dict[str, Any]:
    return {
        "weight_bits": config.weight_bits,
        "activation_bits": config.activation_bits,
        "first_last_bits": config.first_last_bits,
        "weight_method": config.weight_method,
        "activation_method": config.activation_method,
    }


def packed_beside(model: Classifier) -> int:
    """Return the bytes of a packed file without the codes: steps, biases, head, and a byte per layer for rounding."""
    return len(packed(model)) - quantizing.packed_bytes(model) + len(quantizing.quantized_layers(model))


def _mixed(
    config: QuantizeConfig, setup: CompressionSetup, floating: nn.Module, observed: Mapping[str, Histogram], room: int
) -> dict[str, int]:
    """Choose the bits of each layer by their loss on validation images, so that the codes have `room` bytes."""
    if room <= 0:
        assert config.max_bytes is not None, "`room` is computed from it"
        raise ConfigError(
            f"max_bytes is {config.max_bytes:,}, but steps, biases and the head of the file alone need "
            f"{config.max_bytes - room:,}. Allow more bytes, or prune first."
        )
    progress.note("Measuring the sensitivity of each layer to each number of bits; this takes a while.")
    rises = quantizing.sensitivity(floating, observed, setup.loss, weight_method=config.weight_method)
    weights = {name: layer.weight.numel() for name, layer in plain_layers(floating).items()}
    return quantizing.allocate(rises, weights, max_bytes=room)


def learned(
    config: QuantizeConfig,
    setup: CompressionSetup,
    floating: nn.Module,
    start: Classifier,
    folder: Path,
    teacher: TeacherSource | None,
) -> tuple[Classifier, dict[str, Any]]:
    """Return the classifier after quantization-aware training in `folder`, and its record."""
    student = start if config.learns_activations else without_inputs(start)
    record = recover(student, setup, teacher, folder, title="Quantization-aware training")
    trained = load_model(folder)
    if config.activation_bits and not config.learns_activations:
        trained = _with_inputs(config, setup, floating, trained)
    return trained, record


def without_inputs(model: Classifier) -> Classifier:
    """Return a copy whose layers quantize their weights only."""
    model = engine.clone(model)
    for layer in quantizing.quantized_layers(model).values():
        layer.input_quantizer = None
    return model


def _with_inputs(
    config: QuantizeConfig, setup: CompressionSetup, floating: nn.Module, trained: Classifier
) -> Classifier:
    """Return the trained classifier with activation ranges calibrated on its quantized weights."""
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
        activation_method=config.activation_method,
    )
    inputs = {name: layer.input_quantizer for name, layer in quantizing.quantized_layers(ranged).items()}
    for name, layer in quantizing.quantized_layers(trained.network).items():
        layer.input_quantizer = inputs[name]
    return trained.eval()


def _files(config: QuantizeConfig, setup: CompressionSetup, model: Classifier, folder: Path) -> dict[str, Path]:
    """Write the files; return them by name, the original's first."""
    files = {"original": folder / BEFORE, "packed": folder / PACKED}
    with artifacts.atomic(folder / PACKED) as temporary:
        temporary.write_bytes(packed(model))
    gate.check_quantized(folder / PACKED, model, setup.gated, opened=load_packed(folder / PACKED))
    if config.activation_bits in (8, None) and config.first_last_bits in (8, None):
        export_quantized(model, folder / ONNX, setup.raw_calibration, input=config.input)
        gate.check_quantized(folder / ONNX, model, setup.gated)
        files["onnx"] = folder / ONNX
    else:
        progress.note(
            "No ONNX file is written, because runtimes need activations of at least 8 bits. The model is in the packed "
            "file, which is loaded again for evaluation."
        )
    return files


def _summary(
    config: QuantizeConfig,
    setup: CompressionSetup,
    models: dict[str, Any],
    record: dict[str, Any],
    bits: dict[str, int],
) -> dict[str, Any]:
    speed = {}
    if "onnx" in models:
        speed = {"speed_up": round(models["original"]["latency_ms"] / models["onnx"]["latency_ms"], 3)}
    return {
        "data": setup.facts,
        "chosen": {
            "calibrate": config.activation_method,
            "weight_steps": config.weight_method,
            "correct_bias": config.corrects_bias,
        },
        "teacher": setup.teacher_name if config.mode == "qat" else None,
        "models": models,
        **speed,
        "bits": bits,
        "record": record,
    }
