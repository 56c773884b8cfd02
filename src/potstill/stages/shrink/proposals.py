"""From the images to the candidates in the order of their promise, with their costs, within the budgets."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from potstill import artifacts
from potstill.errors import ConfigError
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.models.truncated import AT
from potstill.stages import dataset
from potstill.stages.shrink.candidates import (
    FEWEST_BITS,
    PHOTO_SIZES,
    Base,
    Candidate,
    average_bits,
    from_scratch,
    is_photo,
    lost_by,
    places,
    truncations,
)
from potstill.stages.shrink.costs import Build, Costs, Sketch, impossible, sketched
from potstill.stages.shrink.forecast import features_of, probed
from potstill.stages.shrink.look import Look
from potstill.stages.shrink.settings import ShrinkConfig
from potstill.stages.shrink.starts import layer_of
from potstill.words import plural

MOST_LAYERS = 7  # layers after which a pretrained network is truncated
FEW_BITS = 4
FILE_SHARE = 1.1  # bytes of an 8-bit file for each parameter, at least
QUICK_MINUTES = 40.0  # below, the largest input size is left out


def builder(look: Look, native: tuple[int, int], channels: int) -> Build:
    """Return a function that makes the untrained network of a candidate. native: height and width of small images."""

    def build(candidate: Candidate) -> Classifier:
        builtin = candidate.model.startswith("builtin:")
        return zoo.create(
            candidate.model,
            classes=look.manifest.classes,
            size=(candidate.size, candidate.size) if candidate.size else native,
            channels=channels if builtin else None,
            options=candidate.options,
        )

    return build


def native_input(look: Look, config: ShrinkConfig) -> tuple[tuple[int, int], int]:
    """Return height and width of the images' own input, and their channels: of small images, as they are trained on."""
    channels = dataset.channels_of(look.manifest)
    if is_photo(look.side):  # every candidate has a size of its own
        return (look.side, look.side), channels
    return dataset.prepare(config.data, manifest=look.manifest).crop, channels


def proposed(look: Look, found: Sequence[Base], config: ShrinkConfig) -> list[Candidate]:
    """Return every candidate, before budgets and accuracies are considered."""
    result = list(from_scratch(look.side, look.pixels))
    if is_photo(look.side) and found:
        base = found[0]
        network = base.network(look.manifest.classes)
        limit = config.budgets.max_bytes
        for bits in (8, FEW_BITS) if limit else (8,):
            layers = _layers(network, bits, limit)
            each = [one for size in sizes_of(config) for one in truncations(base, layers, size)]
            result += [replace(one, bits=bits) for one in each]
    return result


def sizes_of(config: ShrinkConfig) -> tuple[int, ...]:
    """Return the input sizes of photos that are tried."""
    if config.data.size:
        return (config.data.size,)
    return PHOTO_SIZES if config.minutes > QUICK_MINUTES else PHOTO_SIZES[:-1]


def _layers(network: Classifier, bits: int, limit: int | None) -> list[str]:
    """Return the last layers of the truncations that can fit, evenly spaced over the others if there are many."""
    counts = {layer: parameters_below(network.network, layer) for layer in places(network)}
    if limit is not None:
        fitting = [layer for layer, count in counts.items() if count * (bits if bits >= 8 else FEWEST_BITS) / 8 < limit]
        return fitting[-MOST_LAYERS:]
    layers = list(counts)
    step = max(len(layers) / MOST_LAYERS, 1.0)
    chosen = [layers[len(layers) - 1 - int(step * position)] for position in range(min(MOST_LAYERS, len(layers)))]
    return chosen[::-1]


def parameters_below(network: nn.Module, layer: str) -> int:
    """Return the number of parameters of a network up to the end of a layer, which come in the order of definition."""
    counts = [(name, parameter.numel()) for name, parameter in network.named_parameters()]
    last = max(number for number, (name, _) in enumerate(counts) if name.startswith(f"{layer}."))
    return sum(count for _, count in counts[: last + 1])


def possible(candidates: Sequence[Candidate], build: Build, costs: Costs, config: ShrinkConfig) -> list[Sketch]:
    """Return the candidates that may be within the budgets.

    Raises `ConfigError` before any training if the smallest ones are not.
    """
    every = sketched(candidates, build)
    fitting = [one for one in every if one.fits(config.budgets)]
    known = {one.candidate.network for one in fitting if one.candidate.bits == 8}
    useful = [one for one in fitting if one.candidate.bits == 8 or not _surely(one, known, config)]
    if not fitting or config.budgets.limits and not _any_fits(fitting, costs, config):
        raise ConfigError(*impossible(every, costs, config.budgets))
    return useful


def _surely(one: Sketch, known: set[str], config: ShrinkConfig) -> bool:
    """Whether a candidate with few bits also fits with 8 bits, so that it has no use."""
    limit = config.budgets.max_bytes
    return one.candidate.network in known and limit is not None and FILE_SHARE * one.parameters < limit


def _any_fits(fitting: Sequence[Sketch], costs: Costs, config: ShrinkConfig) -> bool:
    """Whether one of the candidates with the fewest parameters, and the fewest operations, is within the budgets."""
    ends = {min(fitting, key=lambda one, key=key: getattr(one, key)).candidate for key in ("bytes", "macs")}
    return any(not costs.of(one).excess(config.budgets) for one in sorted(ends, key=lambda one: one.name))


def with_priors(
    sketches: Sequence[Sketch], base: Base | None, config: ShrinkConfig, look: Look, file: Path
) -> list[Sketch]:
    """Return the candidates with the accuracy of a probe on the pretrained features that they start from."""
    wanted = [one.candidate for one in sketches if one.candidate.weights]
    known: dict[str, float] = artifacts.read_json(file) if file.is_file() else {}
    missing = [one for one in wanted if one.network not in known]
    for size, group in itertools.groupby(sorted(missing, key=_size), key=_size):
        assert base is not None and size
        layers = list(dict.fromkeys(layer_of(one) for one in group))
        sampled = features_of(base, config.data, layers, size, look.manifest)
        for layer in layers:
            model = base.model if layer == "pooled" else f"{base.model}{AT}{layer}"
            name = Candidate(model, size, base.options, base.weights).network
            known[name] = round(probed(base.model, sampled, layer, (1.0,)).accuracy, 2)
        artifacts.write_json(file, known)
    return [replace(one, candidate=replace(one.candidate, prior=known.get(one.candidate.network))) for one in sketches]


def _size(candidate: Candidate) -> int:
    return candidate.size or 0


def ordered(sketches: Sequence[Sketch], limited: bool, limit: int | None = None) -> list[Candidate]:
    """Return the candidates in the order in which they are tried. limit: bytes of the file.

    Those with a prior by it, without limits those first that are smaller than all more accurate ones; the others
    after them, from each family in turn the largest, without limits also the smallest and one between.
    """
    informed = [one for one in sketches if one.candidate.prior is not None]
    informed = sorted(informed, key=lambda one: -_promise(one, limit))
    if not limited:
        least, first, rest = float("inf"), [], []
        for one in informed:
            (first if one.bytes < least else rest).append(one)
            least = min(least, one.bytes)
        informed = [*first, *rest]
    families: dict[str, list[Sketch]] = {}
    for one in sorted((one for one in sketches if one.candidate.prior is None), key=lambda one: -one.macs):
        families.setdefault(one.candidate.model, []).append(one)
    turns = [list(_spread(each)) if not limited else each for each in families.values()]
    return [one.candidate for one in [*informed, *_in_turn(turns)]]


def _promise(one: Sketch, limit: int | None) -> float:
    assert one.candidate.prior is not None
    if one.candidate.bits >= 8:
        return one.candidate.prior
    return one.candidate.prior - lost_by(FEW_BITS if limit is None else average_bits(limit, one.parameters))


def _spread(family: list[Sketch]) -> Iterable[Sketch]:
    """Yield the largest, the smallest and the middle one, then the others."""
    first = dict.fromkeys((0, len(family) - 1, len(family) // 2))
    yield from (family[number] for number in first)
    yield from (one for number, one in enumerate(family) if number not in first)


def _in_turn(families: Sequence[Iterable[Sketch]]) -> list[Sketch]:
    return [one for row in itertools.zip_longest(*families) for one in row if one is not None]


def counted(sketches: Sequence[Sketch], every: Sequence[Candidate]) -> str:
    """Return a sentence about the number of candidates."""
    return f"{plural(len(sketches), 'candidate')} of {len(every)} can be within the budgets."
