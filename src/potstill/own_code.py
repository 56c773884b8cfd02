"""Python files that may be executed: only those named on the command line or by the calling code.

A recipe, a card or a run folder may come from somebody else, so none of them decides which code runs. A loss
`FILE.py:FUNCTION` is executed only if the file was allowed: by a flag, by an override on the command line, or by the
settings of a Python caller. Otherwise it is refused before the file is read.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import yaml

from potstill.errors import ConfigError
from potstill.words import argument
from potstill.yaml_text import parse_yaml

P = ParamSpec("P")
R = TypeVar("R")

_allowed: contextvars.ContextVar[frozenset[Path]] = contextvars.ContextVar("potstill_own_code", default=frozenset())


def names_a_file(name: str) -> bool:
    """Whether the name of a loss is a Python file and not a built-in loss."""
    return ".py:" in name or name.endswith(".py")


def file_of(name: str) -> Path:
    """Return the file of `path/to/file.py:function` or `path/to/file.py`, absolute, with links resolved."""
    return Path(_path(name)).expanduser().resolve()


@contextlib.contextmanager
def allowing(*files: str | Path) -> Iterator[None]:
    """Allow these Python files (`FILE.py` or `FILE.py:FUNCTION`) to be executed inside the block."""
    token = _allowed.set(_allowed.get() | {file_of(str(file)) for file in files})
    try:
        yield
    finally:
        _allowed.reset(token)


def allowed() -> frozenset[Path]:
    """Return the files that may be executed here, absolute."""
    return _allowed.get()


def check(names: Iterable[str]) -> None:
    """Raise `ConfigError` with all of these losses that are Python files and not allowed."""
    refused = sorted({name for name in names if names_a_file(name) and file_of(name) not in _allowed.get()})
    if refused:
        raise ConfigError(*(_sentence(name) for name in refused))


def files_named(settings: Any) -> list[str]:
    """Return the Python files of losses in nested settings, as they are written there."""
    return sorted({_path(name) for name in named_in(settings)})


def _path(name: str) -> str:
    return name if name.endswith(".py") else name.rpartition(":")[0]


def _sentence(name: str) -> str:
    path = _path(name)
    return (
        f"The loss {name} is Python code that a file, not your command, requests. It was not executed. If you trust "
        f"{path}, type: --allow-code {argument(path)} (from Python: allow_code=[{path!r}])."
    )


def named_in(settings: Any) -> list[str]:
    """Return the losses in nested settings, or in "a.b.loss=VALUE" assignments, that are Python files."""
    if isinstance(settings, Mapping):
        own = [value for key, value in settings.items() if _is_loss(key) and isinstance(value, str)]
        return [*filter(names_a_file, own), *(name for inner in settings.values() for name in named_in(inner))]
    if isinstance(settings, str):
        key, equals, text = settings.partition("=")
        return named_in({key: _value(text)}) if equals else []
    if isinstance(settings, list | tuple):
        return [name for inner in settings for name in named_in(inner)]
    return []


def _is_loss(key: Any) -> bool:
    return str(key).rpartition(".")[2] == "loss"


def _value(text: str) -> Any:
    try:
        return parse_yaml(text)
    except yaml.YAMLError:
        return text


def allows_own_code(function: Callable[P, R]) -> Callable[P, R]:
    """Allow a public function to execute the files named by its caller: in its settings, and in `allow_code`.

    Files named in a file that the function reads, such as a recipe given by its path, are not allowed.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        named = named_in([*args, dict(kwargs)])
        with allowing(*named, *_listed(kwargs.get("allow_code"))):
            return function(*args, **kwargs)

    return wrapped


def _listed(files: Any) -> list[str | Path]:
    return [files] if isinstance(files, str | Path) else list(files or ())
