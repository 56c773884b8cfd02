"""A program for `runner.js`: instructions on tensors whose shapes and positions in memory are known.

The interpreter needs neither ONNX nor arithmetic on shapes: operators that only move values are one of two
instructions, `read` and `place`, which are given strides; what depends on constants alone is computed beforehand,
except that weights stay in the integers of the file and are dequantized when the page is opened.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from potstill.errors import ModelError
from potstill.model_files.onnx_input import INPUT

Shape = tuple[int, ...]
KINDS = {"float32": "f4", "int8": "i1", "uint8": "u1", "int32": "i4"}
"""Types that the interpreter reads."""


class Unsupported(ModelError):
    """A graph that `runner.js` cannot run; the text is what it lacks."""


@dataclass
class Program:
    """Instructions in order, and what they need.

    output: the name of the logits. constants: by the name of the tensor. macs: multiply-accumulates of one image.
    """

    output: str
    steps: list[list[Any]] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    macs: int = 0

    def drop_unused(self) -> None:
        """Remove the instructions and constants that the output does not depend on."""
        used, kept = {self.output}, []
        for step in reversed(self.steps):
            if step[2] in used:
                used.update(step[1])
                kept.append(step)
        self.steps = kept[::-1]
        self.constants = {name: values for name, values in self.constants.items() if name in used}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON: `steps` of [operator, input numbers, output number, attributes], `constants` as [number,
        type, position in `bytes`, shape], `bytes` in base64, and the numbers of `input` and `output`."""
        number: dict[str, int] = {"": -1}
        steps = [[kind, *_numbered(number, inputs, out), more] for kind, inputs, out, more in self.steps]
        blob, records = bytearray(), []
        for name in (name for name in number if name in self.constants):
            values = self.constants[name]
            blob += bytes(-len(blob) % 4)
            records.append([number[name], KINDS[values.dtype.name], len(blob), list(values.shape)])
            blob += np.ascontiguousarray(values).tobytes()
        ends = {"input": number[INPUT], "output": number[self.output]}
        return {**ends, "steps": steps, "constants": records, "bytes": base64.b64encode(blob).decode()}


def _numbered(number: dict[str, int], inputs: Sequence[str], out: str) -> tuple[list[int], int]:
    numbers = [number.setdefault(name, len(number) - 1) for name in (*inputs, out)]
    return numbers[:-1], numbers[-1]


class Writer:
    """Writes a program; `values` are the tensors of a run of the graph with one image.

    made: the names of tensors that the program makes; unfolded: those of them that do not depend on the image.
    """

    def __init__(self, output: str, values: dict[str, np.ndarray]) -> None:
        self.program = Program(output)
        self.values = values
        self.made = {INPUT}
        self.unfolded: set[str] = set()

    def shape(self, name: str) -> Shape:
        """Return the shape of a tensor for one image."""
        return self.values[name].shape

    def constant(self, name: str) -> np.ndarray:
        """Return a tensor that does not depend on the image."""
        if name in self.made - self.unfolded:
            raise Unsupported("settings that depend on the image")
        return self.values[name]

    def hold(self, values: np.ndarray) -> str:
        """Return the name of a new constant."""
        name = f"~held{len(self.values)}"
        self.values[name] = np.asarray(values, np.float32)
        return name

    def step(self, kind: str, inputs: Sequence[str], out: str = "", shape: Sequence[int] = (), **more: Any) -> str:
        """Add an instruction and return the name of its result; constants among the inputs go with the program.

        out, shape: the name of a tensor of the graph, or the shape of a new one.
        """
        sides = self.shape(out) if out else tuple(int(side) for side in shape)
        out = out or f"~made{len(self.program.steps)}"
        self.made.add(out)
        self.values.setdefault(out, np.broadcast_to(np.float32(0), sides))
        for name in inputs:
            if name and name not in self.made:
                self.program.constants[name] = _stored(self.values[name])
        self.program.steps.append([kind, list(inputs), out, {"shape": list(sides), **more}])
        return out

    def read(self, source: str, out: str, shape: Sequence[int], strides: Sequence[int], *, start: int = 0) -> str:
        """Add an instruction that takes elements of `source` from memory, at `start` and then by `strides`."""
        return self.step("read", [source], out, shape, start=int(start), strides=[int(one) for one in strides])

    def place(self, sources: Sequence[str], out: str, starts: Sequence[int], *, fill: float = 0.0) -> str:
        """Add an instruction that puts whole tensors into a filled one, each at a start in its memory."""
        where, sides = [int(one) for one in starts], [list(self.shape(name)) for name in sources]
        strides = strides_of(self.shape(out))
        return self.step("place", sources, out, starts=where, sides=sides, strides=strides, fill=float(fill))


def strides_of(shape: Sequence[int]) -> list[int]:
    """Return how many elements apart the neighbours along each axis are."""
    sizes = [*itertools.accumulate(reversed([int(one) for one in shape]), lambda a, b: a * b, initial=1)]
    return sizes[-2::-1] if len(sizes) > 1 else []


def _stored(values: np.ndarray) -> np.ndarray:
    return values if values.dtype.name in KINDS else values.astype(np.float32)
