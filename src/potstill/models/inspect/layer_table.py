"""The insides of a model as a table: what `potstill layers MODEL` shows and what `--unfreeze 2` means."""

from __future__ import annotations

from dataclasses import dataclass

from potstill.errors import ModelError
from potstill.models.freeze import freeze_except, unfreeze
from potstill.models.inspect.forward_trace import Seen, trace
from potstill.models.inspect.taps import stages
from potstill.models.outputs import Classifier, bare


@dataclass(frozen=True)
class Layer:
    """A row of the table. path: the name a tap takes. kind: the class. shape: of its output, without the batch, as
    the module gives it; None where it gives no single tensor. parameters: of everything inside. stage: "stage:2" where
    it is the end of one, else "".
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None
    parameters: int
    stage: str = ""


def describe_layers(classifier: Classifier, *, depth: int | None = 2) -> list[Layer]:
    """Return the modules of a network in the order of execution, down to `depth` dots deep (None: all).

    The ends of stages are always among them.
    """
    seen = trace(classifier)
    ends = {tap.path: tap.name for tap in stages(seen)}
    shown = [s for s in seen.seen if s.path and (depth is None or s.path.count(".") < depth or s.path in ends)]
    return [_layer(s, ends.get(s.path, "")) for s in shown]


def _layer(s: Seen, stage: str) -> Layer:
    parameters = sum(p.numel() for p in s.module.parameters())
    return Layer(s.path, type(s.module).__name__, s.shape, parameters, stage)


def freeze_below(classifier: Classifier, keep: int | str) -> None:
    """Let the head and the last `keep` stages learn and freeze what comes before; "none" is 0, "all" frees everything.

    What is frozen gets no gradients and stays in eval mode after every `.train()` call, BatchNorm and dropout
    included. Raises `ModelError` where the network has fewer stages.
    """
    network = bare(classifier.network)
    unfreeze(network)
    if keep != "all":
        freeze_except(network, learning(classifier, 0 if keep == "none" else int(keep)))


def learning(classifier: Classifier, keep: int) -> list[str]:
    """Return the paths of the outermost modules with weights that lie in the last `keep` stages or after them."""
    seen = trace(classifier)
    found = stages(seen)
    if not 0 <= keep <= len(found):
        raise ModelError(
            f"{classifier.card.model} has {len(found)} stages, so {keep} of them cannot learn. Use --unfreeze with "
            f"0 to {len(found)}, none or all; `potstill layers {classifier.card.model}` shows them."
        )
    start = _start(seen.by_path, found, keep, seen.head)
    later = sorted((s for s in seen.seen if s.start > start), key=lambda s: s.path.count("."))
    kept: list[str] = []
    for s in later:
        if next(s.module.parameters(), None) is not None and not any(s.path.startswith(f"{k}.") for k in kept):
            kept.append(s.path)
    return kept


def _start(seen: dict[str, Seen], found: list, keep: int, head: Seen) -> int:
    """Return the moment before which everything is frozen."""
    if keep == 0:
        return head.start - 1
    if keep == len(found):
        return 0
    return seen[found[-keep - 1].path].end
