"""Settings of `potstill quantize`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator
from torch import nn

from potstill.compress.quantize.ranges import ActivationMethod, WeightMethod
from potstill.config import Bytes
from potstill.models.inspect.plain_layers import has_depthwise
from potstill.stages.compress import simulation
from potstill.stages.compress.common import CompressConfig
from potstill.training.settings import TrainConfig


@dataclass(frozen=True)
class Methods:
    """How a network is quantized. learn_activations: its activations are quantized while its weights are learned."""

    calibrate: ActivationMethod
    weight_steps: WeightMethod
    rounding: Literal["nearest", "reconstruct"]
    correct_bias: bool
    learn_activations: bool

    @property
    def reconstructs(self) -> bool:
        """Whether weights are rounded by reconstruction of blocks."""
        return self.rounding == "reconstruct"


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
        default="auto", description="step sizes of weights; auto: absmax, mse to reconstruct, or lsq for 2-bit training"
    )
    rounding: Literal["auto", "nearest", "reconstruct"] = Field(
        default="auto",
        description="rounding; auto: reconstruct if ptq has fewer than 8 bits",
    )
    learn_activations: bool | None = Field(
        default=None, description="quantize activations while weights are learned; null: only below 8 bits"
    )
    equalize: bool = Field(default=False, description="cross-layer equalization")
    correct_bias: bool | None = Field(
        default=None, description="bias correction; null: if rounded to nearest below 6 bits or with depthwise layers"
    )
    max_bytes: Bytes | None = Field(default=None, description="maximum bytes of each file; bits then differ by layer")
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
    def writes_onnx(self) -> bool:
        """Whether runtimes can execute the network: its activations are in float or in 8 bits everywhere."""
        return self.activation_bits in (8, None) and self.first_last_bits in (8, None)

    def methods(self, network: nn.Module) -> Methods:
        """Return the methods for a network, with those that are "auto" or null chosen."""
        sensitive = has_depthwise(network)
        reconstruct = self._reconstructs(sensitive)
        calibrate = ("minmax" if self.activation_bits == 8 else "mse") if self.calibrate == "auto" else self.calibrate
        few = self.activation_bits is not None and self.activation_bits < 8
        together = (few or (reconstruct and sensitive)) if self.learn_activations is None else self.learn_activations
        shifted = self.weight_bits < 6 or sensitive
        return Methods(
            calibrate=calibrate,
            weight_steps=self._weight_steps(reconstruct),
            rounding="reconstruct" if reconstruct else "nearest",
            correct_bias=(shifted and not reconstruct) if self.correct_bias is None else self.correct_bias,
            learn_activations=together,
        )

    def _reconstructs(self, sensitive: bool) -> bool:
        if self.rounding != "auto":
            return self.rounding == "reconstruct"
        few = self.weight_bits < 8 or self.max_bytes is not None
        narrow = self.activation_bits is not None and self.activation_bits < 8
        return self.mode == "ptq" and (few or (sensitive and narrow))

    def _weight_steps(self, reconstruct: bool) -> WeightMethod:
        if self.weight_steps != "auto":
            return self.weight_steps
        if self.mode == "qat" and self.weight_bits == 2:
            return "lsq"
        return "mse" if reconstruct and self.weight_bits < 8 else "absmax"
