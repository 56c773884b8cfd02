"""The layers of a model as a table: what `potstill layers MODEL` shows and what `--unfreeze 2` means."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.errors import ModelError
from potstill.models.freeze import freeze_except, unfreeze
from potstill.models.hooks import Tap
from potstill.models.inspect.forward_trace import ModuleCall, trace
from potstill.models.inspect.taps import stages
from potstill.models.outputs import Classifier, bare
from potstill.words import argument, plural


@dataclass(frozen=True)
class Layer:
    """A row of the table. path: usable as the name of a tap. kind: the class. shape: of its output without the batch,
    in the module's own layout; None if the output is not a tensor. parameters: including submodules. stage: "stage:2"
    if it is the end of that stage, else "".
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    stage: str = ""


def describe_layers(classifier: Classifier, *, depth: int | None = 2) -> list[Layer]:
    """Return the modules of a network in the order of execution, down to nesting level `depth` (None: all).

    The ends of stages are always included.
    """
    seen = trace(classifier)
    ends = {tap.path: tap.name for tap in stages(seen)}
    shown = [s for s in seen.seen if s.path and (depth is None or s.path.count(".") < depth or s.path in ends)]
    return [_layer(s, ends.get(s.path, "")) for s in shown]


def _layer(s: ModuleCall, stage: str) -> Layer:
    parameters = sum(p.numel() for p in s.module.parameters())
    return Layer(s.path, type(s.module).__name__, s.shape, parameters, stage)


def freeze_below(classifier: Classifier, keep: int | str) -> None:
    """Make the head and the last `keep` stages trainable and freeze the rest; "none" is 0, "all" freezes nothing.

    Frozen modules get no gradients and stay in eval mode after every `.train()` call, including BatchNorm and dropout.
    Raises `ModelError` if the network has fewer stages.
    """
    network = bare(classifier.network)
    unfreeze(network)
    if keep != "all":
        freeze_except(network, learning(classifier, 0 if keep == "none" else int(keep)))


def learning(classifier: Classifier, keep: int) -> list[str]:
    """Return the paths of the outermost modules with weights in the last `keep` stages or after them."""
    seen = trace(classifier)
    ends = stages(seen)
    if not 0 <= keep <= len(ends):
        raise ModelError(
            f"{classifier.card.typed} has {plural(len(ends), 'stage')}; --unfreeze must be 0-{len(ends)}, none or all, "
            f"but is {keep}. `potstill layers {argument(classifier.card.typed)}` shows the stages."
        )
    start = _start(seen.by_path, ends, keep, seen.head)
    later = sorted((s for s in seen.seen if s.start > start), key=lambda s: s.path.count("."))
    kept: list[str] = []
    for s in later:
        if next(s.module.parameters(), None) is not None and not any(s.path.startswith(f"{k}.") for k in kept):
            kept.append(s.path)
    return kept


def _start(seen: dict[str, ModuleCall], ends: list[Tap], keep: int, head: ModuleCall) -> int:
    """Return the time before which everything is frozen."""
    if keep == 0:
        return head.start - 1
    if keep == len(ends):
        return 0
    return seen[ends[-keep - 1].path].end
