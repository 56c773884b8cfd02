"""Settings of `potstill quantize`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from potstill.compress.quantize.ranges import ActivationMethod, WeightMethod
from potstill.config import Bytes
from potstill.stages.compress import simulation
from potstill.stages.compress.common import CompressConfig
from potstill.training.settings import TrainConfig


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
        default="auto", description="rounding of weights; auto: reconstruct below 8 bits after training, else nearest"
    )
    learn_activations: bool | None = Field(
        default=None, description="quantize activations during training; null: only below 8 bits"
    )
    equalize: bool = Field(default=False, description="cross-layer equalization")
    correct_bias: bool | None = Field(
        default=None, description="bias correction; null: below 6 bits, if rounded to nearest"
    )
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
        if self.mode == "qat" and self.weight_bits == 2:
            return "lsq"
        return "mse" if self.reconstructs else "absmax"

    @property
    def reconstructs(self) -> bool:
        """Whether weights are rounded by reconstruction of blocks."""
        few = self.weight_bits < 8 or self.max_bytes is not None
        return self.rounding == "reconstruct" or (self.rounding == "auto" and self.mode == "ptq" and few)

    @property
    def learns_activations(self) -> bool:
        """Whether activations are quantized during training, which makes a step several times slower."""
        few = self.activation_bits is not None and self.activation_bits < 8
        return few if self.learn_activations is None else self.learn_activations

    @property
    def corrects_bias(self) -> bool:
        """Whether biases are corrected for the shift of rounding; reconstruction learns them."""
        return self.weight_bits < 6 and not self.reconstructs if self.correct_bias is None else self.correct_bias
