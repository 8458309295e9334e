"""A look into an ONNX file without the onnx package: where its head is, and the file with more tensors given out.

    graph = Graph.read(Path("model.onnx"))
    head = graph.head()                        # None where no linear layer stands on a mean of a feature map
    graph.giving_out(head.names)               # the file's bytes, whose outputs are those and the tensors named

Protobuf messages of one type can be joined by joining their bytes: repeated fields add up. So a few bytes at the end of
the file add outputs to its graph, and nothing of it is copied or decoded. What is read are the nodes alone; weights are
skipped by their length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from efuda.errors import ArtifactError

__all__ = ["Graph", "Head", "Node"]

# Numbers of fields in onnx.proto: a model's graph, a graph's nodes and outputs, parts of a node and of an attribute.
_GRAPH, _NODE, _OUTPUT, _NAME = 7, 1, 12, 1
_NODE_INPUT, _NODE_OUTPUT, _OP_TYPE, _ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _INTEGER = 1, 3
_SAME: Final = frozenset(  # what passes values on, one to one, whatever its shape
    ("Cast", "DequantizeLinear", "Dropout", "Flatten", "Gather", "Identity", "QuantizeLinear", "Reshape", "Squeeze")
)
_TO_SCORES: Final = _SAME | {"Sigmoid", "Slice", "Pad", "Concat"}
_MEANS: Final = frozenset(("GlobalAveragePool", "ReduceMean"))


@dataclass(frozen=True)
class Node:
    """An operation: what it reads, what it writes, and its attributes that are whole numbers."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    numbers: dict[str, int]


@dataclass(frozen=True)
class Head:
    """A linear layer on the mean of a feature map; names of tensors.

    Attributes:
        weight: [features, tags], or with `transposed` [tags, features].
        bias: [tags]; None where there is none.
    """

    feature_map: str
    weight: str
    bias: str | None
    logits: str
    transposed: bool

    @property
    def names(self) -> tuple[str, ...]:
        """All that are needed, the bias last."""
        return (self.feature_map, self.weight, self.logits, *([self.bias] if self.bias else []))


class Graph:
    """The nodes of a file and its outputs' names, in order."""

    def __init__(self, data: bytes, nodes: Iterable[Node], outputs: Iterable[str]) -> None:
        self.data, self.outputs = data, tuple(outputs)
        self._made_by = {name: node for node in nodes for name in node.outputs}

    @classmethod
    def read(cls, path: Path) -> Self:
        """Raises ArtifactError where the file cannot be read or is no ONNX file."""
        try:
            data = path.read_bytes()
            nodes: list[Node] = []
            outputs: list[str] = []
            for graph in _messages(memoryview(data), _GRAPH):
                for number, value in _fields(graph):
                    if number == _NODE and isinstance(value, memoryview):
                        nodes.append(_node(value))
                    elif number == _OUTPUT and isinstance(value, memoryview):
                        outputs += [bytes(name).decode() for name in _messages(value, _NAME)]
        except (OSError, ValueError, IndexError) as error:
            raise ArtifactError(f"{path} cannot be read as an ONNX file ({error}).") from error
        return cls(data, nodes, outputs)

    def head(self) -> Head | None:
        """The linear layer that one of the outputs comes from."""
        found = (self._head(output) for output in self.outputs)
        return next((head for head in found if head), None)

    def giving_out(self, names: Iterable[str]) -> bytes:
        """The file with these tensors as further outputs, after its own."""
        more = [name for name in dict.fromkeys(names) if name not in self.outputs]
        infos = b"".join(_message(_OUTPUT, _message(_NAME, name.encode())) for name in more)
        return self.data + _message(_GRAPH, infos)

    def _head(self, output: str) -> Head | None:
        logits, bias = self._back(output, _TO_SCORES), None
        node = self._made_by.get(logits)
        if node and node.op == "Add":
            first, second = node.inputs
            product, bias = (first, second) if self._is(first, "MatMul") else (second, first)
            node = self._made_by.get(product)
        if node is None or node.op not in ("Gemm", "MatMul"):
            return None
        if node.op == "Gemm" and len(node.inputs) > 2:
            bias = node.inputs[2]
        mean = self._made_by.get(self._back(node.inputs[0], _SAME))
        if mean is None or mean.op not in _MEANS:
            return None
        return Head(mean.inputs[0], node.inputs[1], bias, logits, bool(node.numbers.get("transB", 0)))

    def _back(self, name: str, through: frozenset[str]) -> str:
        """Follow first inputs back to what is not made by one of these operations."""
        while (node := self._made_by.get(name)) and node.op in through:
            name = node.inputs[0]
        return name

    def _is(self, name: str, op: str) -> bool:
        node = self._made_by.get(name)
        return node is not None and node.op == op


def _node(view: memoryview) -> Node:
    op, inputs, outputs, numbers = "", list[str](), list[str](), dict[str, int]()
    for number, value in _fields(view):
        if not isinstance(value, memoryview):
            continue
        if number == _NODE_INPUT:
            inputs.append(bytes(value).decode())
        elif number == _NODE_OUTPUT:
            outputs.append(bytes(value).decode())
        elif number == _OP_TYPE:
            op = bytes(value).decode()
        elif number == _ATTRIBUTE:
            parts = dict(_fields(value))
            name, whole = parts.get(_ATTRIBUTE_NAME), parts.get(_INTEGER)
            if isinstance(name, memoryview) and isinstance(whole, int):
                numbers[bytes(name).decode()] = whole
    return Node(op, tuple(inputs), tuple(outputs), numbers)


def _messages(view: memoryview, wanted: int) -> Iterator[memoryview]:
    return (value for number, value in _fields(view) if number == wanted and isinstance(value, memoryview))


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Protobuf's wire format: (field, value) with a whole number, or a view of bytes."""
    at = 0
    while at < len(view):
        key, at = _varint(view, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(view, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(view, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no wire type {kind}")
        if at + length > len(view):
            raise ValueError("it ends too early")
        yield key >> 3, view[at : at + length]
        at += length


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = view[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def _message(field: int, content: bytes) -> bytes:
    """A field that holds bytes."""
    return _as_varint(field << 3 | 2) + _as_varint(len(content)) + content


def _as_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])
