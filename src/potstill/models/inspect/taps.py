"""Names for places inside any network: a module's path, `stage:-1`, `stage:2/4`, `pooled`, `tokens`.

A stage is all layers at one resolution in a convolutional network, one block in a transformer. Both are derived from
one traced forward pass, so custom networks have them too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from potstill.errors import ModelError, did_you_mean
from potstill.models.hooks import Tap
from potstill.models.inspect.forward_trace import ModuleCall, Trace, trace
from potstill.models.outputs import Classifier
from potstill.words import argument, plural


def tapped(classifier: Classifier, names: Sequence[str]) -> Classifier:
    """Return the same network, with the features of `names` in `Outputs.features`."""
    return classifier.replace(taps=resolve(classifier, names))


def resolve(classifier: Classifier, names: Sequence[str]) -> tuple[Tap, ...]:
    """Return the taps with these names, with kind and shape.

    "stage:2" counts from 1, "stage:-1" from the end, "stage:2/4" is the stage at half of the stages, however many.
    "pooled" is the input vector of the last layer, before dropout; "tokens" the last tokens of a transformer.
    Raises `ModelError` for a name that the model does not have.
    """
    seen = trace(classifier)
    return tuple(_resolve(seen, name, classifier.card.typed) for name in names)


def stages(seen: Trace) -> list[Tap]:
    """Return the ends of a network's stages, in order, named "stage:1" and so on."""
    ends = _blocks(seen) if _ends_in_tokens(seen) else []
    ends = ends or _resolutions(seen) or _dense_layers(seen)
    return [_known_output(seen, s, f"stage:{number}") for number, s in enumerate(ends, 1)]


def _resolve(seen: Trace, name: str, model: str) -> Tap:
    if name.startswith("stage:"):
        return replace(_stage(stages(seen), name, model), name=name)
    if name == "pooled":
        return _pooled(seen)
    if name == "tokens":
        return _tokens(seen, model)
    if name not in seen.by_path or name == "":
        raise ModelError(
            f"{model} has no layer '{name}'.{did_you_mean(name, seen.by_path)} `potstill layers {argument(model)}` "
            "lists them; stage:-1, stage:2/4 and pooled work on any model."
        )
    tap = _output(seen, seen.by_path[name], name)
    if tap is None:
        raise ModelError(
            f"The output of the layer '{name}' of {model} is not a map, tokens or a vector; choose another layer."
        )
    return tap


def _stage(ends: list[Tap], name: str, model: str) -> Tap:
    match = re.fullmatch(r"stage:(-?\d+)(?:/(\d+))?", name)
    if match is None:
        raise ModelError(f"'{name}' is not a stage. Write stage:2, stage:-1 (the last) or stage:2/4 (halfway).")
    number, parts = int(match[1]), int(match[2] or 0)
    if parts and 0 < number <= parts:
        return ends[math.ceil(len(ends) * number / parts) - 1]
    if parts or not 1 <= abs(number) <= len(ends):
        raise ModelError(
            f"{model} has {plural(len(ends), 'stage')}, so there is no '{name}'. Use stage:1 to stage:{len(ends)}, or "
            "count from the end with stage:-1."
        )
    return ends[number - 1 if number > 0 else number]


def _pooled(seen: Trace) -> Tap:
    """Return a tap on the input of the last layer, or of the dropout before it."""
    before = [s for s in seen.seen if s.end < seen.head.start and s.shape == seen.head.input_shape]
    dropped = bool(before) and isinstance(before[-1].module, nn.Dropout)
    at = before[-1] if dropped else seen.head
    layout = seen.layout(at.input_shape) if at.input_shape else None
    assert layout is not None, "the last layer reads a tensor of a known layout"
    kind, shape, last = layout
    channels = shape[-1] if kind == "tokens" else shape[0]
    return Tap("pooled", at.path, "input", "vector", (channels,), last, at.input_overwritten)


def _tokens(seen: Trace, model: str) -> Tap:
    modules = [s for s in _before_head(seen) if _kind(seen, s) == "tokens"]
    if not modules:
        raise ModelError(f"{model} has no tokens: it is not a transformer. Use stage:-1 for its last map, or pooled.")
    return _known_output(seen, modules[-1], "tokens")


def _known_output(seen: Trace, s: ModuleCall, name: str) -> Tap:
    tap = _output(seen, s, name)
    assert tap is not None, "chosen by its layout"
    return tap


def _output(seen: Trace, s: ModuleCall, name: str) -> Tap | None:
    layout = seen.layout(s.shape) if s.shape else None
    if layout is None:
        return None
    kind, shape, channels_last = layout
    return Tap(name, s.path, "output", kind, shape, channels_last, s.overwritten)


def _before_head(seen: Trace) -> list[ModuleCall]:
    return [s for s in seen.seen if s.end < seen.head.start and s.path]


def _kind(seen: Trace, s: ModuleCall) -> str | None:
    layout = seen.layout(s.shape) if s.shape else None
    return layout[0] if layout else None


def _ends_in_tokens(seen: Trace) -> bool:
    kinds = [_kind(seen, s) for s in _before_head(seen) if _kind(seen, s) == "tokens" or _level(seen, s) is not None]
    return bool(kinds) and kinds[-1] == "tokens"


def _blocks(seen: Trace) -> list[ModuleCall]:
    """Return the blocks of a transformer: the longest list of siblings of one class with tokens of one shape."""
    rows: dict[tuple, list[ModuleCall]] = {}
    for s in _before_head(seen):
        if _kind(seen, s) == "tokens":
            rows.setdefault((s.path.rpartition(".")[0], type(s.module), s.shape), []).append(s)
    outermost = sorted(rows.items(), key=lambda row: (row[0][0].count("."), -len(row[1])))
    return next((row for _, row in outermost if len(row) > 1 and _deep(row[0].module)), [])


def _deep(module: nn.Module) -> bool:
    """Whether a module is a block and not a single layer."""
    return next(module.children(), None) is not None


def _level(seen: Trace, s: ModuleCall) -> int | None:
    """Return how often the image was halved at a module's map; None if it is not a map, or globally pooled."""
    layout = seen.layout(s.shape) if s.shape else None
    if layout is None or layout[0] != "map" or (layout[1][1:] == (1, 1) and s.end < seen.one_pixel):
        return None
    return max(0, round(math.log2(seen.size[0] / layout[1][1])))


@dataclass
class _Level:
    last: ModuleCall
    layers: int = 0


def _resolutions(seen: Trace) -> list[ModuleCall]:
    """Return the last module at each resolution, whole blocks before their submodules.

    A resolution without weights (after a final pooling) is not a stage, nor is a stem: a first resolution with a
    single layer if others have more.
    """
    levels: dict[int, _Level] = {}
    blocks = _reducing_blocks(seen)
    for s in _before_head(seen):
        level = _level(seen, s)
        if level is None or level < max(levels, default=0) or _inside(s.path, level, blocks):
            continue
        entry = levels.setdefault(level, _Level(s))
        entry.layers += _has_kernel(s.module)
        entry.last = entry.last if isinstance(s.module, nn.Dropout | nn.AdaptiveAvgPool2d) else s
    entries = [entry for entry in levels.values() if entry.layers]
    stem = len(entries) > 1 and entries[0].layers == 1 and max(entry.layers for entry in entries) > 1
    return [entry.last for entry in (entries[1:] if stem else entries)]


def _dense_layers(seen: Trace) -> list[ModuleCall]:
    """Return the output module of each linear layer before the last one, after its activation."""
    before = _before_head(seen)
    starts = [place for place, s in enumerate(before) if isinstance(s.module, nn.Linear)]
    rows = [before[a:b] for a, b in zip(starts, [*starts[1:], len(before)], strict=True)]
    return [[s for s in row if s.shape == row[0].shape and not isinstance(s.module, nn.Dropout)][-1] for row in rows]


def _has_kernel(module: nn.Module) -> bool:
    """Whether the module itself has a weight matrix or kernel: a layer, not a norm and not a container."""
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


def _reducing_blocks(seen: Trace) -> dict[str, int]:
    """Return the output level of each block that starts at another level, by path.

    A block has its own forward and crosses one level at most; a module that crosses more is a whole network.
    """
    levels = {s.path: _level(seen, s) for s in _before_head(seen)}
    blocks: dict[str, int] = {}
    for path, level in levels.items():
        if level is None or type(seen.by_path[path].module) is nn.Sequential:
            continue
        below = {other for name, other in levels.items() if name.startswith(f"{path}.") and other is not None}
        below.discard(level)
        if below and sum(other < level for other in below) <= 1:
            blocks[path] = level
    return blocks


def _inside(path: str, level: int, blocks: dict[str, int]) -> bool:
    """Whether a module is inside a block that ends at another resolution."""
    parents = path.split(".")
    above = (".".join(parents[:depth]) for depth in range(1, len(parents)))
    return any(blocks.get(parent, level) != level for parent in above)
