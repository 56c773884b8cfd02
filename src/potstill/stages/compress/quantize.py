"""`potstill quantize`: fewer bits for weights and activations, after training or with training, and the files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from potstill import artifacts, progress
from potstill.compress import quantize as quantizing
from potstill.compress.quantize import Histogram
from potstill.errors import ConfigError, ModelError
from potstill.exporters import export_onnx
from potstill.exporters.onnx_low_bit import export_quantized
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.packed import packed
from potstill.model_files.rebuild import rebuilt
from potstill.models.inspect.plain_layers import plain_layers
from potstill.models.outputs import Classifier
from potstill.stages.compress import simulation
from potstill.stages.compress.common import (
    CompressConfig,
    Given,
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
CORRECTED = 256  # calibration images that measure the shift of a layer's mean


class QuantizeConfig(CompressConfig):
    """How many bits, how they are fitted, and how the model is trained with them."""

    weight_bits: int = Field(default=8, ge=2, le=8)
    activation_bits: int | None = Field(default=8, ge=2, le=8, description="null: activations stay in float")
    first_last_bits: int | None = Field(default=8, ge=2, le=8, description="null: as the other layers")
    mode: Literal["ptq", "qat"] = Field(default="ptq", description="after training, or with training")
    calibrate: Literal["auto", "minmax", "percentile", "mse", "entropy"] = Field(
        default="auto", description="how ranges of activations are chosen; auto: minmax for 8 bits, mse below"
    )
    weight_steps: Literal["auto", "absmax", "mse", "lsq"] = Field(
        default="auto", description="auto: absmax; lsq where 2 bits are trained"
    )
    learn_activations: bool | None = Field(
        default=None, description="train with rounded activations; null: below 8 bits, for 8 fit as well afterwards"
    )
    equalize: bool = False
    correct_bias: bool | None = Field(default=None, description="null: below 6 bits")
    max_bytes: int | None = Field(default=None, ge=1, description="of the packed file; bits then differ by layer")
    weight_format: str | None = Field(default=None, description="simulated: fixed4.4, e4m3, fp16, ...; null: float")
    activation_format: str | None = Field(default=None, description="the same for the inputs of layers")
    simulate: bool = Field(default=False, description="measure these formats; no file in them is written")
    train: TrainConfig = TrainConfig(epochs=1, optimizer="adamw", lr=0.0005, weight_decay=0)

    @model_validator(mode="before")
    @classmethod
    def _either_bits_or_formats(cls, given: Any) -> Any:
        """Refuse settings of integers beside simulated formats, which would be ignored."""
        if isinstance(given, dict):
            simulation.check_settings(given)
        return given

    @model_validator(mode="after")
    def _fits(self) -> QuantizeConfig:
        for key, text in (("weight_format", self.weight_format), ("activation_format", self.activation_format)):
            if text is not None:
                simulation.read_format(key, text)
        if self.train.weight_decay:
            raise ValueError("train.weight_decay must be 0: decay would shrink the steps that are learned.")
        return self

    def to_json(self) -> dict[str, Any]:
        """Return the resolved settings as plain JSON types, without those that have no effect in a simulation."""
        settings = super().to_json()
        return {key: settings[key] for key in settings if not (self.simulate and key in simulation.INTEGERS)}

    @property
    def activation_method(self) -> str:
        """How the ranges of activations are chosen."""
        return ("minmax" if self.activation_bits == 8 else "mse") if self.calibrate == "auto" else self.calibrate

    @property
    def weight_method(self) -> str:
        """How the steps of weights are chosen."""
        if self.weight_steps != "auto":
            return self.weight_steps
        return "lsq" if self.mode == "qat" and self.weight_bits == 2 else "absmax"

    @property
    def learns_activations(self) -> bool:
        """Whether activations are rounded in training, which makes a step several times as long."""
        few = self.activation_bits is not None and self.activation_bits < 8
        return few if self.learn_activations is None else self.learn_activations

    @property
    def corrects_bias(self) -> bool:
        """Whether biases take back the shift of rounding."""
        return self.weight_bits < 6 if self.correct_bias is None else self.correct_bias


def quantize(config: QuantizeConfig, folder: Path, *, stores: Path | None = None, command: str = "") -> dict[str, Any]:
    """Write the quantized model and its files into `folder` and return the summary.

    model.packed.safetensors has the weights in their bits, and so has model.onnx, which is written where activations
    have 8 bits (or stay in float) and runs in 8 bits. Accuracy is that of the files, read back. With `simulate` no
    model and no file is written, only the summary. What was begun in `folder` with the same settings goes on.
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
    given = journal.timed("data", "Read the model and the images", lambda: open_model(config))
    if "quantized" in given.model.card.compressed:
        raise ModelError(f"{config.model} is quantized already. Give the model that it was made from.")
    if config.simulate:
        return simulation.simulate(config.weight_format, config.activation_format, given, folder, journal)
    export_onnx(given.model, folder / BEFORE)  # what cannot be exported is told before the work
    floating, start, bits = journal.timed("calibration", "Calibrated and quantized", lambda: calibrated(config, given))
    record = {"validation_calibrated": validation_accuracy(start, given)}
    if config.mode == "qat":
        quantized = start
        start, trained = journal.timed(
            "training",
            "Trained with quantization",
            lambda: learned(config, given, floating, quantized, folder / "trained", teacher_of(given, folder, stores)),
        )
        record |= trained
    save_model(start, folder)
    files = _files(config, given, start, folder)
    networks = {"original": given.model, **dict.fromkeys(list(files)[1:], start)}
    figures = journal.timed(
        "evaluation", "Opened the test split, once", lambda: measured_files(networks, files, given, folder)
    )
    warn_of_slow(figures)
    return _summary(config, given, figures, record, bits)


def calibrated(config: QuantizeConfig, given: Given) -> tuple[nn.Module, Classifier, dict[str, int]]:
    """Return the folded float network, the classifier quantized after training, and the bits of each layer."""
    floating = quantizing.fold_batchnorm(given.model.network, given.example)
    if config.equalize:
        floating = quantizing.equalize(floating, given.example)
    observed = quantizing.observe(floating, given.calibration.split(64))
    network = quantizing.quantized(floating, observed, **_settings(config))
    card, kind = given.model.card, {"weight_bits": config.weight_bits, "activation_bits": config.activation_bits}
    card = card.replace(compressed={**card.compressed, "quantized": {**kind, "mode": config.mode}})
    if config.max_bytes:
        chosen = _mixed(config, given, floating, observed, packed_beside(Classifier(network, card)))
        network = quantizing.quantized(floating, observed, **_settings(config), layer_bits=chosen)
    if config.corrects_bias:
        network = quantizing.correct_bias(network, floating, given.calibration[:CORRECTED])
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
    """Return the bytes of a packed file beside the codes: steps, biases, the head; and a byte a layer to round up."""
    return len(packed(model)) - quantizing.packed_bytes(model) + len(quantizing.quantized_layers(model))


def _mixed(
    config: QuantizeConfig, given: Given, floating: nn.Module, observed: Mapping[str, Histogram], beside: int
) -> dict[str, int]:
    """Choose bits for each layer by what they cost on validation images, so that the packed file fits."""
    if config.max_bytes <= beside:
        raise ConfigError(
            f"max_bytes is {config.max_bytes:,}, but steps, biases and the head of the file alone take {beside:,}. "
            "Allow more bytes, or prune first."
        )
    progress.note("Each layer is judged at each number of bits on validation images; this takes a while.")
    rises = quantizing.sensitivity(floating, observed, given.loss, weight_method=config.weight_method)
    weights = {name: layer.weight.numel() for name, layer in plain_layers(floating).items()}
    return quantizing.allocate(rises, weights, max_bytes=config.max_bytes - beside)


def learned(
    config: QuantizeConfig,
    given: Given,
    floating: nn.Module,
    start: Classifier,
    folder: Path,
    teacher: TeacherSource | None,
) -> tuple[Classifier, dict[str, Any]]:
    """Return the classifier after quantization-aware training in `folder`, and the record of it."""
    student = start if config.learns_activations else without_inputs(start)
    record = recover(student, given, teacher, folder, title="learning with few bits")
    trained = load_model(folder)
    if config.activation_bits and not config.learns_activations:
        trained = _with_inputs(config, given, floating, trained)
    return trained, record


def without_inputs(model: Classifier) -> Classifier:
    """Return a copy whose layers round their weights only."""
    model = engine.clone(model)
    for layer in quantizing.quantized_layers(model).values():
        layer.input_quantizer = None
    return model


def _with_inputs(config: QuantizeConfig, given: Given, floating: nn.Module, trained: Classifier) -> Classifier:
    """Return the trained classifier with ranges of activations measured now, behind the weights it has rounded."""
    rounded = engine.clone(trained).network
    for layer in quantizing.quantized_layers(rounded).values():
        layer.weight.data = layer.weight_quantizer(layer.weight).detach()
    plain = rebuilt(floating, quantizing.float_state(rounded.state_dict()), given.example)
    observed = quantizing.observe(plain, given.calibration.split(64))
    ranged = quantizing.quantized(
        plain, observed, activation_bits=config.activation_bits, first_last_bits=config.first_last_bits,
        activation_method=config.activation_method,
    )  # fmt: skip
    inputs = {name: layer.input_quantizer for name, layer in quantizing.quantized_layers(ranged).items()}
    for name, layer in quantizing.quantized_layers(trained.network).items():
        layer.input_quantizer = inputs[name]
    return trained.eval()


def _files(config: QuantizeConfig, given: Given, model: Classifier, folder: Path) -> dict[str, Path]:
    """Write the files; return them by name, the original's first."""
    files = {"original": folder / BEFORE, "packed": folder / PACKED}
    with artifacts.atomic(folder / PACKED) as temporary:
        temporary.write_bytes(packed(model))
    if config.activation_bits in (8, None) and config.first_last_bits in (8, None):
        export_quantized(model, folder / ONNX, given.raw_calibration)
        files["onnx"] = folder / ONNX
    else:
        progress.note(
            "No ONNX file was written: runtimes compute with activations of 8 bits or more. The packed file holds the "
            "model; its accuracy was measured by reading it back."
        )
    return files


def _summary(
    config: QuantizeConfig, given: Given, models: dict[str, Any], record: dict[str, Any], bits: dict[str, int]
) -> dict[str, Any]:
    speed = {}
    if "onnx" in models:
        speed = {"speed_up": round(models["original"]["latency_ms"] / models["onnx"]["latency_ms"], 3)}
    return {
        "data": given.facts,
        "chosen": {
            "calibrate": config.activation_method,
            "weight_steps": config.weight_method,
            "correct_bias": config.corrects_bias,
        },
        "teacher": given.teacher_name if config.mode == "qat" else None,
        "models": models,
        **speed,
        "bits": bits,
        "record": record,
    }
