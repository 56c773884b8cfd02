"""YAML from anywhere: no objects, no dates, and no more values than a recipe has."""

from __future__ import annotations

from typing import Any

import yaml

_LONGEST, _MOST_VALUES, _DEEPEST = 1_000_000, 100_000, 50
_TOO_DEEP = f"it is nested more than {_DEEPEST} deep, or holds itself"


class _Loader(yaml.SafeLoader):
    """Dates stay text: as objects they would be neither JSON nor the name that was meant.

    Nesting is bounded while the text is read, since the time for "[[[[..." grows with the square of its depth.
    """

    def fetch_flow_collection_start(self, token: Any) -> None:
        """Begin a [ or {."""
        if self.flow_level >= _DEEPEST:
            raise yaml.YAMLError(_TOO_DEEP)
        super().fetch_flow_collection_start(token)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """Return the value of a YAML text; raise `yaml.YAMLError` if it is not valid, or larger than any recipe.

    Aliases are expanded, so that a few lines can stand for billions of values, or for one that holds itself.
    """
    if len(text) > _LONGEST:
        raise yaml.YAMLError(f"it has {len(text):,} characters; at most {_LONGEST:,} are read")
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}, 0) > _MOST_VALUES:
            raise yaml.YAMLError(f"its aliases stand for more than {_MOST_VALUES:,} values")
        return loader.construct_document(node)
    except (RecursionError, ValueError, TypeError, OverflowError) as error:  # of numbers and keys
        raise yaml.YAMLError(str(error) or type(error).__name__) from None
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return how many values a node stands for, its aliases expanded."""
    if depth > _DEEPEST or known.get(id(node)) == 0:
        raise yaml.YAMLError(_TOO_DEEP)
    if id(node) not in known:
        known[id(node)] = 0
        inner = node.value if isinstance(node, yaml.CollectionNode) else []
        parts = [part for one in inner for part in (one if isinstance(one, tuple) else (one,))]
        known[id(node)] = 1 + sum(_size(part, known, depth + 1) for part in parts)
    return known[id(node)]
