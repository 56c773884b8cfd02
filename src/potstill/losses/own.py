"""Losses from the user's own files: `path/to/file.py:function`."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import cast

from torch import Tensor

from potstill import own_code
from potstill.errors import ConfigError, did_you_mean
from potstill.losses.common import full_precision

INPUTS = ("student", "teacher", "label", "index")


def load(name: str) -> Callable[..., Tensor]:
    """Return the function of `path/to/file.py:function`; it receives its inputs in float32.

    Raises `ConfigError` if the file is not allowed (potstill.own_code), if there is no such file or function, or if it
    has parameters that cannot be passed.
    """
    own_code.check([name])
    path, _, function = (name + ":" if name.endswith(".py") else name).rpartition(":")
    module = _module(Path(path).expanduser())
    names = [key for key, value in vars(module).items() if _is_own(value, module) and key[0] != "_"]
    if not function:
        raise ConfigError(
            f"The loss {name} is a file without a function name. Write {path}:{names[0] if names else 'NAME'}."
        )
    loss = vars(module).get(function)
    if not callable(loss):
        raise ConfigError(
            f"The file {path} has no function {function}.{did_you_mean(function, names)} "
            f"It has: {', '.join(names) or 'none'}."
        )
    loss = cast(Callable[..., Tensor], loss)
    _check_parameters(name, loss)
    return full_precision(loss)


def _is_own(value: object, module: ModuleType) -> bool:
    return inspect.isfunction(value) and value.__module__ == module.__name__


def _module(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"There is no file {path} for the loss. Paths are relative to {Path.cwd()}.")
    return _executed(path.resolve(), path.stat().st_mtime_ns)


@functools.cache
def _executed(path: Path, changed: int) -> ModuleType:
    """Import the file, once until it changes: a loss is resolved several times."""
    spec = importlib.util.spec_from_file_location(f"potstill_own_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "the path ends with .py"
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(
            f"The file {path} of the loss cannot be imported: {type(error).__name__}: {error}."
        ) from error
    return module


def _check_parameters(name: str, function: Callable[..., Tensor]) -> None:
    parameters = inspect.signature(function).parameters
    example = "def my_loss(student, teacher, *, temperature=4.0)"
    problems = []
    if "student" not in parameters or not {"teacher", "label"} & set(parameters):
        problems.append(
            f"The loss {name} has the parameters ({', '.join(parameters)}), but a loss must have `student` and at "
            f"least one of `teacher` and `label`, by these names. For example: {example}."
        )
    unknown = [p.name for p in parameters.values() if p.name not in INPUTS and p.default is inspect.Parameter.empty]
    if unknown:
        problems.append(
            f"The loss {name} needs {', '.join(unknown)}, which potstill does not pass. It passes "
            f"{', '.join(INPUTS)}; all other parameters need a default, after a *. For example: {example}."
        )
    if problems:
        raise ConfigError(*problems)
