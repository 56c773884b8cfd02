"""The start of a shallower network: some of the blocks of a deeper one of the same kind, which has the same widths.

In every list of blocks as many as the network has are taken evenly from the first to the last: 0, 4 and 8 of nine. All
other layers are taken as they are. Students of transformers start so: Sanh et al. 2019 (DistilBERT, arXiv:1910.01108),
Shleifer and Rush 2020 (arXiv:2010.13002).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from potstill.models.weights import State

Numbers = Mapping[str, list[int]]
"""The numbers of the blocks in each list of blocks, by the path of the list."""


def of_blocks(state: State, names: Collection[str]) -> State:
    """Return tensors of a deeper network under the names of a shallower one; those that it lacks are left out."""
    own, deep = _numbers(names), _numbers(state)
    chosen = {name: _chosen(name, own, deep) for name in names}
    return {name: state[other] for name, other in chosen.items() if other in state}


def counted(state: State, names: Collection[str]) -> tuple[int, int]:
    """Return how many blocks the shallower and the deeper network have in the lists that differ in length."""
    own, deep = _numbers(names), _numbers(state)
    lists = [path for path in own if len(deep.get(path, ())) > len(own[path])]
    return sum(len(own[path]) for path in lists), sum(len(deep[path]) for path in lists)


def _numbers(names: Collection[str]) -> Numbers:
    found: dict[str, set[int]] = defaultdict(set)
    for name in names:
        parts = name.split(".")
        for place, part in enumerate(parts):
            if part.isdigit():
                found[".".join(parts[:place])].add(int(part))
    return {path: sorted(numbers) for path, numbers in found.items()}


def _chosen(name: str, own: Numbers, deep: Numbers) -> str:
    """Return the name in the deeper network of a tensor of the shallower one."""
    parts, there = name.split("."), list[str]()
    for place, part in enumerate(parts):
        here, those = own.get(".".join(parts[:place]), []), deep.get(".".join(there), [])
        if part.isdigit() and len(those) > len(here):
            last = max(len(here) - 1, 1)
            part = str(those[(2 * here.index(int(part)) * (len(those) - 1) + last) // (2 * last)])  # rounded
        there.append(part)
    return ".".join(there)
