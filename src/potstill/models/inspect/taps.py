"""Names for places inside any network: a module's path, `stage:-1`, `stage:2/4`, `pooled`, `tokens`.

A stage is what people mean by one: in a network of maps everything at one resolution, in a transformer one block.
Both are read off one watched forward pass, so a network of the user's own has them too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from potstill.errors import ModelError, did_you_mean
from potstill.models.hooks import Tap
from potstill.models.inspect.forward_trace import Seen, Trace, trace
from potstill.models.outputs import Classifier


def tapped(classifier: Classifier, names: Sequence[str]) -> Classifier:
    """Return the same network, whose outputs carry the features of `names` in `Outputs.features`."""
    return classifier.replace(taps=resolve(classifier, names))


def resolve(classifier: Classifier, names: Sequence[str]) -> tuple[Tap, ...]:
    """Return the taps that names stand for, with kind and shape.

    "stage:2" counts from 1, "stage:-1" from the end, "stage:2/4" is the stage halfway through any number of them.
    "pooled" is the vector that the last layer sees, without dropout; "tokens" the last tokens of a transformer.
    Raises `ModelError` for a name that this model does not have.
    """
    seen = trace(classifier)
    return tuple(_resolve(seen, name, classifier.card.model) for name in names)


def stages(seen: Trace) -> list[Tap]:
    """Return the ends of a network's stages, in order, named "stage:1" and so on."""
    found = _blocks(seen) if _ends_in_tokens(seen) else []
    found = found or _resolutions(seen) or _dense_layers(seen)
    return [_output(seen, s, f"stage:{number}") for number, s in enumerate(found, 1)]


def _resolve(seen: Trace, name: str, model: str) -> Tap:
    if name.startswith("stage:"):
        return replace(_stage(stages(seen), name, model), name=name)
    if name == "pooled":
        return _pooled(seen)
    if name == "tokens":
        return _tokens(seen, model)
    if name not in seen.by_path or name == "":
        raise ModelError(
            f"{model} has no layer '{name}'.{did_you_mean(name, seen.by_path)} `potstill layers {model}` lists them; "
            "stage:-1, stage:2/4 and pooled work on any model."
        )
    tap = _output(seen, seen.by_path[name], name)
    if tap is None:
        raise ModelError(f"The layer '{name}' of {model} gives no map, tokens or vector to learn from; choose another.")
    return tap


def _stage(found: list[Tap], name: str, model: str) -> Tap:
    match = re.fullmatch(r"stage:(-?\d+)(?:/(\d+))?", name)
    if match is None:
        raise ModelError(f"'{name}' names no stage. Write stage:2, stage:-1 (the last) or stage:2/4 (halfway).")
    number, parts = int(match[1]), int(match[2] or 0)
    if parts and 0 < number <= parts:
        return found[math.ceil(len(found) * number / parts) - 1]
    if parts or not 1 <= abs(number) <= len(found):
        raise ModelError(
            f"{model} has {len(found)} stages, so '{name}' is none of them. Use stage:1 to stage:{len(found)}, or "
            "count from the end with stage:-1."
        )
    return found[number - 1 if number > 0 else number]


def _pooled(seen: Trace) -> Tap:
    """Return a tap on the input of the last layer, or of the dropout before it."""
    before = [s for s in seen.seen if s.end < seen.head.start and s.shape == seen.head.fed]
    dropped = bool(before) and isinstance(before[-1].module, nn.Dropout)
    at = before[-1] if dropped else seen.head
    kind, shape, last = seen.layout(at.fed)
    channels = shape[-1] if kind == "tokens" else shape[0]
    return Tap("pooled", at.path, "input", "vector", (channels,), last, at.fed_overwritten)


def _tokens(seen: Trace, model: str) -> Tap:
    found = [s for s in _before_head(seen) if _kind(seen, s) == "tokens"]
    if not found:
        raise ModelError(f"{model} has no tokens: it is no transformer. Use stage:-1 for its last map, or pooled.")
    return _output(seen, found[-1], "tokens")


def _output(seen: Trace, s: Seen, name: str) -> Tap | None:
    layout = seen.layout(s.shape) if s.shape else None
    if layout is None:
        return None
    kind, shape, channels_last = layout
    return Tap(name, s.path, "output", kind, shape, channels_last, s.overwritten)


def _before_head(seen: Trace) -> list[Seen]:
    return [s for s in seen.seen if s.end < seen.head.start and s.path]


def _kind(seen: Trace, s: Seen) -> str | None:
    layout = seen.layout(s.shape) if s.shape else None
    return layout[0] if layout else None


def _ends_in_tokens(seen: Trace) -> bool:
    kinds = [_kind(seen, s) for s in _before_head(seen) if _kind(seen, s) == "tokens" or _level(seen, s) is not None]
    return bool(kinds) and kinds[-1] == "tokens"


def _blocks(seen: Trace) -> list[Seen]:
    """Return the blocks of a transformer: the longest row of siblings of one class that give tokens of one shape."""
    rows: dict[tuple, list[Seen]] = {}
    for s in _before_head(seen):
        if _kind(seen, s) == "tokens":
            rows.setdefault((s.path.rpartition(".")[0], type(s.module), s.shape), []).append(s)
    outermost = sorted(rows.items(), key=lambda row: (row[0][0].count("."), -len(row[1])))
    return next((row for _, row in outermost if len(row) > 1 and _deep(row[0].module)), [])


def _deep(module: nn.Module) -> bool:
    """Tell a block from a single layer."""
    return next(module.children(), None) is not None


def _level(seen: Trace, s: Seen) -> int | None:
    """Return how often the image was halved to give a module's map; None for no map, or one that was pooled."""
    layout = seen.layout(s.shape) if s.shape else None
    if layout is None or layout[0] != "map" or (layout[1][1:] == (1, 1) and s.end < seen.one_pixel):
        return None
    return max(0, round(math.log2(seen.size[0] / layout[1][1])))


@dataclass
class _Level:
    last: Seen
    layers: int = 0


def _resolutions(seen: Trace) -> list[Seen]:
    """Return for each resolution the last module that gives it, whole blocks before their insides.

    A resolution without a weight (what a last pooling leaves) is no stage, and a stem, a first resolution with a
    single layer where others have more, is none either.
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
    found = [entry for entry in levels.values() if entry.layers]
    stem = len(found) > 1 and found[0].layers == 1 and max(entry.layers for entry in found) > 1
    return [entry.last for entry in (found[1:] if stem else found)]


def _dense_layers(seen: Trace) -> list[Seen]:
    """Return what each dense layer before the last one gives, after its activation."""
    before = _before_head(seen)
    starts = [place for place, s in enumerate(before) if isinstance(s.module, nn.Linear)]
    rows = [before[a:b] for a, b in zip(starts, [*starts[1:], len(before)], strict=True)]
    return [[s for s in row if s.shape == row[0].shape and not isinstance(s.module, nn.Dropout)][-1] for row in rows]


def _has_kernel(module: nn.Module) -> bool:
    """Tell whether the module itself multiplies by a matrix or kernel: a layer, not a norm and not a container."""
    return any(parameter.ndim > 1 for parameter in module.parameters(recurse=False))


def _reducing_blocks(seen: Trace) -> dict[str, int]:
    """Return the level of the output of each block that begins at another, by path.

    A block has a forward of its own and comes from one level at most; what crosses more is a whole network.
    """
    levels = {s.path: _level(seen, s) for s in _before_head(seen)}
    blocks = {}
    for path, level in levels.items():
        if level is None or type(seen.by_path[path].module) is nn.Sequential:
            continue
        inside = {other for name, other in levels.items() if name.startswith(f"{path}.")} - {None, level}
        if inside and sum(other < level for other in inside) <= 1:
            blocks[path] = level
    return blocks


def _inside(path: str, level: int, blocks: dict[str, int]) -> bool:
    """Tell whether a module is the inside of a block that ends at another resolution."""
    parents = path.split(".")
    above = (".".join(parents[:depth]) for depth in range(1, len(parents)))
    return any(blocks.get(parent, level) != level for parent in above)
