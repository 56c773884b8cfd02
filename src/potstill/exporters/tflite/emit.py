"""Operators to the bytes of a .tflite file: a flatbuffer with the schema of the package `tflite`.

Constants stand in buffers that are aligned to 16 bytes, as the schema demands; equal constants share one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from potstill.exporters.tflite.graph import Grid
from potstill.exporters.tflite.lower import Lowered
from potstill.exporters.tflite.operators import OPTIONS, Operator, Tensor, minimum_release

SCHEMA, IDENTIFIER, ALIGNMENT = 3, b"TFL3", 16
TYPES = {"float32": 0, "int32": 2, "uint8": 3, "int8": 9}
"""Numbers of element types in the schema."""
SIGNATURE = "serving_default"
"""The name under which runtimes look for a signature by default."""
LAST_OLD_CODE = 127
"""The largest operator code that fits into the field of old readers."""


def emit(lowered: Lowered, *, metadata: Mapping[str, str], description: str) -> bytes:
    """Return the file. metadata: texts by name, beside `min_runtime_version`."""
    return _File(lowered).bytes(metadata, description)


class _File:
    """A flatbuffer is written from its leaves: buffers, then tables that refer to them."""

    def __init__(self, lowered: Lowered) -> None:
        import flatbuffers  # optional, with the schema
        import tflite

        self._schema = tflite
        self._builder = flatbuffers.Builder(1 << 16)
        self._lowered = lowered
        self._tensors = _tensors(lowered)
        self._place = {id(tensor): number for number, tensor in enumerate(self._tensors)}
        self._buffers: list[int] = [self._table("Buffer")]  # the first is empty, for computed tensors
        self._shared: dict[bytes, int] = {}
        self._vectors: dict[tuple[str, bytes], int] = {}

    def bytes(self, metadata: Mapping[str, str], description: str) -> bytes:
        builder, operators = self._builder, self._lowered.operators
        tensors = [self._tensor(tensor) for tensor in self._tensors]
        kinds = sorted({(operator.code, operator.version) for operator in operators})
        subgraph = self._table(
            "SubGraph",
            Tensors=self._offsets(tensors),
            Inputs=self._numbers([self._place[id(self._lowered.image)]]),
            Outputs=self._numbers([self._place[id(self._lowered.result)]]),
            Operators=self._offsets([self._operator(operator, kinds) for operator in operators]),
            Name=builder.CreateString("main"),
        )
        texts = {"min_runtime_version": minimum_release(operators).ljust(16, "\0"), **metadata}
        entries = [self._metadata(name, text) for name, text in texts.items()]
        model = self._table(
            "Model",
            Version=SCHEMA,
            OperatorCodes=self._offsets([self._code(*kind) for kind in kinds]),
            Subgraphs=self._offsets([subgraph]),
            Description=builder.CreateString(description),
            Buffers=self._offsets(self._buffers),
            Metadata=self._offsets(entries),
            SignatureDefs=self._offsets([self._signature()]),
        )
        builder.Finish(model, IDENTIFIER)
        return bytes(builder.Output())

    def _table(self, name: str, **fields: Any) -> int:
        """Write a table; fields that are offsets must have been written before."""
        getattr(self._schema, f"{name}Start")(self._builder)
        for field, value in fields.items():
            getattr(self._schema, f"{name}Add{field}")(self._builder, value)
        return getattr(self._schema, f"{name}End")(self._builder)

    def _offsets(self, offsets: Sequence[int]) -> int:
        self._builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self._builder.PrependUOffsetTRelative(offset)
        return self._builder.EndVector()

    def _numbers(self, numbers: Sequence[int] | np.ndarray, kind: Any = np.int32) -> int:
        """Write a vector, once: shapes and zero points are often the same."""
        vector = np.asarray(numbers, kind)
        key = (vector.dtype.str, vector.tobytes())
        if key not in self._vectors:
            self._vectors[key] = self._builder.CreateNumpyVector(vector)
        return self._vectors[key]

    def _buffer(self, content: bytes) -> int:
        """Write an aligned buffer, and return its number."""
        if content not in self._shared:
            builder = self._builder
            builder.StartVector(1, len(content), ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            self._shared[content] = len(self._buffers)
            self._buffers.append(self._table("Buffer", Data=builder.EndVector()))
        return self._shared[content]

    def _tensor(self, tensor: Tensor) -> int:
        fields: dict[str, Any] = {
            "Shape": self._numbers(tensor.shape),
            "Name": self._builder.CreateString(tensor.name),
        }
        if tensor.grid is not None:
            fields["Quantization"] = self._quantization(tensor.grid)
        fields["Buffer"] = 0 if tensor.data is None else self._buffer(tensor.data.tobytes())
        return self._table("Tensor", Type=TYPES[tensor.dtype.name], HasRank=True, **fields)

    def _quantization(self, grid: Grid) -> int:
        scale, zero = self._numbers(grid.scale, np.float32), self._numbers(grid.zero, np.int64)
        axis = grid.axis if len(grid.scale) > 1 else 0
        return self._table("QuantizationParameters", Scale=scale, ZeroPoint=zero, QuantizedDimension=axis)

    def _code(self, code: str, version: int) -> int:
        number = getattr(self._schema.BuiltinOperator, code)
        old = min(number, LAST_OLD_CODE)
        return self._table("OperatorCode", DeprecatedBuiltinCode=old, Version=version, BuiltinCode=number)

    def _operator(self, operator: Operator, kinds: list[tuple[str, int]]) -> int:
        options = {
            name: self._numbers(value) if isinstance(value, tuple) else value
            for name, value in operator.options.items()
        }
        table = OPTIONS.get(operator.code)
        written = {} if table is None else {"BuiltinOptions": self._table(table, **options)}
        return self._table(
            "Operator",
            OpcodeIndex=kinds.index((operator.code, operator.version)),
            Inputs=self._numbers([-1 if one is None else self._place[id(one)] for one in operator.inputs]),
            Outputs=self._numbers([self._place[id(one)] for one in operator.outputs]),
            BuiltinOptionsType=0 if table is None else getattr(self._schema.BuiltinOptions, table),
            **written,
        )

    def _metadata(self, name: str, text: str) -> int:
        label = self._builder.CreateString(name)
        return self._table("Metadata", Name=label, Buffer=self._buffer(text.encode()))

    def _signature(self) -> int:
        sides = {"Inputs": [("image", self._lowered.image)], "Outputs": [("logits", self._lowered.result)]}
        maps = {side: self._offsets([self._map(*one) for one in pairs]) for side, pairs in sides.items()}
        return self._table("SignatureDef", SignatureKey=self._builder.CreateString(SIGNATURE), SubgraphIndex=0, **maps)

    def _map(self, name: str, tensor: Tensor) -> int:
        return self._table("TensorMap", Name=self._builder.CreateString(name), TensorIndex=self._place[id(tensor)])


def _tensors(lowered: Lowered) -> list[Tensor]:
    """Return all tensors once, in the order of their use."""
    found = {id(lowered.image): lowered.image}
    for operator in lowered.operators:
        found |= {id(tensor): tensor for tensor in (*operator.inputs, *operator.outputs) if tensor is not None}
    return list(found.values())
