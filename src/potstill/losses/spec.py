"""`Spec`: the declaration of a loss, from which `objectives/feature_terms.py` connects it to two networks.

A loss with parameters is a module class. If it depends on the networks (their widths, the teacher's classifier), it has
a classmethod `at(site, **options)`; `Site` provides this information.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from torch import Tensor, nn

On = Literal["logits", "features", "pooled", "maps", "layers"]


class Site(Protocol):
    """The tapped places of student and teacher for which a loss with parameters is built.

    steps: number of training steps. rows: int64 [N], the `index` of every training image. student_channels,
    teacher_channels: channels of the features, one number per place. rectified: whether the teacher's features are
    never negative.
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
        """Return weight [K, D] and bias [K] of the teacher's last layer; raise `ConfigError` if it is not linear."""
        ...

    def batch_norm(self) -> nn.BatchNorm2d:
        """Return the teacher's batch norm before the place; raise `ConfigError` if there is none."""
        ...


@dataclass(frozen=True)
class Spec:
    """A loss, and the inputs that it compares.

    function: of tensors, or the class of a module with parameters. on: the inputs `student` and `teacher`: logits
    [B, K]; features of any shape [B, ...]; pooled [B, D]; maps [B, C, H, W]; layers, lists of maps, shallow to deep.
    tap: default place of a term. projects: the student's features need a projector to the teacher's shape.
    least_places: minimum number of places in `on`. same_size: the larger map is average-pooled to the smaller.
    channels_first: tokens as [B, C, N]. before_relu: features before the ReLU. shares_head: the student reuses the
    teacher's classifier. remembers: it keeps a memory of every image, in one process. whole_batch: it compares the
    images of a batch with each other, so a part of the batch gives another loss. two_classes: why it is unsuitable for
    two classes.
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
    whole_batch: bool = False
    two_classes: str = ""

    @property
    def learned(self) -> bool:
        """Whether it has parameters, a memory or parts of the teacher, and is built once per training."""
        return isinstance(self.function, type) and issubclass(self.function, nn.Module)

    @property
    def call(self) -> Callable[..., Any]:
        """The function called in a step, whose parameter names select its inputs."""
        return cast(Any, self.function).forward if self.learned else self.function

    def build(self, site: Site, **options: Any) -> nn.Module:
        """Return the module of a loss with parameters."""
        return cast(Any, self.function).at(site, **options)
