"""`Spec`: what a loss declares of itself. `objectives/feature_terms.py` connects two networks by it and knows no names.

A loss with parameters is a module class. Where it needs to know the networks (their widths, the teacher's classifier),
it has a classmethod `at(site, **options)`; `Site` is what it may ask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor, nn

On = Literal["logits", "features", "pooled", "maps", "layers"]


class Site(Protocol):
    """The two places that a loss with parameters is built for.

    steps: of the whole training. rows: int64 [N], the `index` of every training image. student_channels,
    teacher_channels: of the features, one number a place. rectified: whether the teacher's feature is never negative.
    """

    @property
    def steps(self) -> int: ...

    @property
    def rows(self) -> Tensor: ...

    @property
    def student_channels(self) -> list[int]: ...

    @property
    def teacher_channels(self) -> list[int]: ...

    @property
    def rectified(self) -> bool: ...

    def classifier(self) -> tuple[Tensor, Tensor]:
        """Return weight [K, D] and bias [K] of the teacher's last layer; raise `ConfigError` where it is another."""
        ...

    def batch_norm(self) -> nn.BatchNorm2d:
        """Return the teacher's batch norm before the place; raise `ConfigError` where there is none."""
        ...


@dataclass(frozen=True)
class Spec:
    """A loss, and what it compares.

    function: of tensors, or the class of a module with parameters. on: what `student` and `teacher` are: logits
    [B, K]; features of any shape [B, ...]; pooled [B, D]; maps [B, C, H, W]; layers, lists of maps, shallow to deep.
    tap: where it looks where a term does not say. projects: the student's feature needs a projector to the teacher's
    shape. least_places: how many `on` must list. same_size: the larger map is averaged to the smaller. channels_first:
    tokens as [B, C, N]. before_relu: features from before the ReLU. shares_head: the student ends in the teacher's
    classifier. remembers: it keeps a memory of every image, in one process. two_classes: why it does not suit two.
    """

    function: Callable[..., Any]
    on: On = "logits"
    tap: str = "stage:-1"
    projects: bool = False
    least_places: int = 1
    same_size: bool = False
    channels_first: bool = False
    before_relu: bool = False
    shares_head: bool = False
    remembers: bool = False
    two_classes: str = ""

    @property
    def learned(self) -> bool:
        """Whether it has parameters, a memory or pieces of the teacher, and is built once for a training."""
        return isinstance(self.function, type) and issubclass(self.function, nn.Module)

    @property
    def call(self) -> Callable[..., Any]:
        """What is called in a step, for the names of its parameters."""
        return self.function.forward if self.learned else self.function  # type: ignore[attr-defined]

    def build(self, site: Site, **options: Any) -> nn.Module:
        """Return the module of a loss with parameters."""
        return self.function.at(site, **options)  # type: ignore[attr-defined]
