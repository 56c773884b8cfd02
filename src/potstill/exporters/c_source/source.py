"""Generated C made fit for a microcontroller: memory planned in advance, names of its own, short text.

The generator allocates every tensor by itself, and frees all of them at the end. Here they share one piece of memory
that the caller gives: tensors that are not alive at the same time lie in the same place.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

from potstill.errors import ModelError

ALIGNMENT = 16
BYTES = {"float": 4, "double": 8, "_Bool": 1, "bool": 1}
ALLOCATION = re.compile(
    r"^ *(?P<kind>\w+) \(?\*(?P<name>\w+)\)?(?P<sides>(?:\[\d+\])*) = "
    r"malloc\(sizeof\(\*(?P=name)\) \* (?P<count>\d+)\);\n"
    r" *if \((?P=name) == NULL\) \{\n *return;\n *\}\n",
    re.M,
)
FREE = re.compile(r"^ *free\(\w+\);\n", re.M)
CONSTANT = re.compile(r"^(const EMX_UNUSED [^=;]+ = )(\{.*?\});", re.M | re.S)
DECLARATION = re.compile(r"^extern const .*;\n", re.M)
LOADER = re.compile(r"^_Bool \w+_load\(const char \*path\) \{\n.*?^\}\n", re.M | re.S)


@dataclass
class _Tensor:
    """A tensor inside the function: its declaration, bytes, and the first and last call that use it."""

    declaration: str
    name: str
    bytes: int
    first: int = -1
    last: int = -1
    offset: int = 0

    def overlaps(self, other: _Tensor) -> bool:
        return self.first <= other.last and other.first <= self.last


def planned(text: str, name: str) -> tuple[str, int]:
    """Return generated C whose function `name` works in memory of the caller, and the bytes that it needs.

    Raises `ModelError` if the text is not as emx-onnx-cgen 1.4 writes it.
    """
    text = CONSTANT.sub(_short, DECLARATION.sub("", LOADER.sub("", text)))
    head, opening, body = text.partition(f"\nvoid {name}(")
    signature, brace, body = body.partition(") {\n")
    tensors = [_tensor(found) for found in ALLOCATION.finditer(body)]
    body = FREE.sub("", ALLOCATION.sub("", body))
    if not opening or "malloc(" in head + body or "free(" in head + body:
        raise ModelError(
            "The C that emx-onnx-cgen writes is not in the form that potstill knows. Install the version it was made "
            "for: pip install 'emx-onnx-cgen>=1.4,<1.5'"
        )
    _use(tensors, body)
    size = _place(tensors)
    places = "".join(f"    {one.declaration}(void *)((unsigned char *)arena + {one.offset});\n" for one in tensors)
    unused = "" if tensors else "    (void)arena;\n"
    return f"{head}{opening}{signature}, void *arena{brace}{places}{unused}{body}", size


def _tensor(found: re.Match[str]) -> _Tensor:
    kind, sides = found["kind"], found["sides"]
    each = BYTES.get(kind) or int(re.sub(r"\D", "", kind)) // 8
    size = each * int(found["count"])
    for side in re.findall(r"\d+", sides):
        size *= int(side)
    return _Tensor(f"{kind} (*{found['name']}){sides} = ", found["name"], size)  # (*x) is *x, of one axis


def _use(tensors: list[_Tensor], body: str) -> None:
    """Find the calls that use each tensor."""
    known = {tensor.name: tensor for tensor in tensors}
    for step, line in enumerate(body.splitlines()):
        for word in set(re.findall(r"\w+", line)) & known.keys():
            tensor = known[word]
            tensor.first = step if tensor.first < 0 else tensor.first
            tensor.last = step


def _place(tensors: list[_Tensor]) -> int:
    """Choose the offsets, the largest tensors first, and return the bytes of all."""
    placed: list[_Tensor] = []
    for tensor in sorted(tensors, key=lambda one: -one.bytes):
        others = sorted((one for one in placed if one.overlaps(tensor)), key=lambda one: one.offset)
        tensor.offset = next(_gaps(tensor.bytes, others))
        placed.append(tensor)
    return max((_aligned(one.offset + one.bytes) for one in tensors), default=0)


def _gaps(size: int, others: list[_Tensor]) -> Iterator[int]:
    """Yield the offsets at which `size` bytes are free."""
    start = 0
    for other in others:
        if start + size <= other.offset:
            yield start
        start = max(start, _aligned(other.offset + other.bytes))
    yield start


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _short(found: re.Match[str]) -> str:
    """Return a constant that only this file sees, with many numbers a line."""
    numbers = re.sub(r"([{]) | (?=[}])", r"\1", re.sub(r"\s+", " ", found[2]))
    lines = textwrap.wrap(numbers, 118, break_long_words=False, break_on_hyphens=False)
    return f"static {found[1]}" + "\n".join(lines) + ";"
