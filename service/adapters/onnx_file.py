"""What has to be known of an ONNX file before ONNX Runtime reads it, found in its bytes.

ONNX is protobuf: fields of a number and a value each, where a value of bytes may be a message again. That much is read
here, for the `onnx` package is no part of serving. See `inspect`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
"""Whose operators are run: those of the standard, and ONNX Runtime's own."""

MAX_NODES = 100_000
"""Nodes of a graph, each call of a function counted as the nodes that it stands for."""
MAX_PARTS = 2_000_000
"""Fields that are looked at. The numbers of a tensor are one, if they are written as exporters do."""
MAX_DEPTH = 100
"""Messages within messages; protobuf's own readers go as far."""

CHILDREN = {
    "Model": {7: "Graph", 20: "TrainingInfo", 25: "Function"},
    "TrainingInfo": {1: "Graph", 2: "Graph"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {},
}
"""By message: the fields that are messages in which a node or a tensor may be."""

OP_TYPE, NODE_DOMAIN = 4, 7
FUNCTION_NAME, FUNCTION_DOMAIN = 1, 10
TENSOR_NAME, EXTERNAL_DATA, DATA_LOCATION = 8, 13, 14

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

Operator = tuple[str, str]
"""Its domain and its type."""


class UnusableModel(Exception):
    """A model file cannot be served; the message says why."""


class Facts(NamedTuple):
    """What was found. `operators` are those of all graphs and functions."""

    operators: frozenset[Operator]

    @property
    def loops(self) -> bool:
        """Whether a run may go on for as long as its numbers say."""
        return any(operator == "Loop" for _, operator in self.operators)


def inspect(content: bytes) -> Facts:
    """Read a file's structure. Raises `UnusableModel`, with the reason, for a file

    - that is no ONNX file, or is nested or divided beyond belief;
    - that keeps numbers in other files: it would have this process read whatever they are;
    - with operators of a domain that is not in `DOMAINS`, its own functions excepted;
    - whose functions call each other in a circle, or stand for more than `MAX_NODES` nodes.
    """
    reader = _Reader(memoryview(content))
    reader.read("Model", 0, len(content), 0, reader.graph)
    functions = reader.functions
    operators = frozenset(operator for body in (reader.graph, *functions.values()) for operator in body)
    for domain, operator in sorted(operators - functions.keys()):
        if domain not in DOMAINS:
            known = ", ".join(sorted(filter(None, DOMAINS)))
            raise UnusableModel(
                f"the operator {operator!r} is of the domain {domain!r}; operators of {known} are run, and the "
                "functions that the file itself defines"
            )
    _require_size(reader.graph, functions)
    return Facts(operators)


Body = Counter[Operator]
"""How often each operator stands in a graph, the graphs within it included."""


def _require_size(graph: Body, functions: dict[Operator, Body]) -> None:
    sizes: dict[Operator, int] = {}

    def size(body: Body, callers: tuple[Operator, ...]) -> int:
        nodes = 0
        for operator, times in body.items():
            if operator in callers:
                raise UnusableModel(f"the function {operator[1]!r} calls itself")
            if operator in functions and operator not in sizes:
                if len(callers) == MAX_DEPTH:
                    raise UnusableModel(f"functions call each other more than {MAX_DEPTH} deep")
                sizes[operator] = size(functions[operator], (*callers, operator))
            nodes += times * sizes.get(operator, 1)
        return nodes

    if (nodes := size(graph, ())) > MAX_NODES:
        raise UnusableModel(f"the graph has {nodes} nodes, its functions written out; at most {MAX_NODES} are taken")


@dataclass
class _Reader:
    content: memoryview
    graph: Body = field(default_factory=Counter)
    functions: dict[Operator, Body] = field(default_factory=dict)
    _parts: int = 0

    def read(self, message: str, start: int, end: int, depth: int, body: Body) -> None:
        """Read a message; count its nodes in `body`, or in that of the function that it is."""
        if depth > MAX_DEPTH:
            raise UnusableModel(f"the file is nested more than {MAX_DEPTH} deep")
        children = CHILDREN[message]
        if message == "Function":
            body = Counter()
        texts: dict[int, str] = {}
        for number, kind, at, until in self._fields(start, end):
            if kind == _BYTES and number in children:
                self.read(children[number], at, until, depth + 1, body)
            elif message in ("Node", "Function") and kind == _BYTES:
                texts[number] = str(self.content[at : min(until, at + 200)], errors="replace")
            elif message == "Tensor" and (number == EXTERNAL_DATA or (number == DATA_LOCATION and at)):
                raise UnusableModel("a tensor's numbers are in another file; a model is one file, with its weights")
        if message == "Node":
            body[_operator(texts, NODE_DOMAIN, OP_TYPE)] += 1
        elif message == "Function":
            key = _operator(texts, FUNCTION_DOMAIN, FUNCTION_NAME)
            if key in self.functions:
                raise UnusableModel(f"the function {key[1]!r} is defined more than once")
            self.functions[key] = body

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield each field's number and kind, with where its bytes begin and end, or its value (twice) for a varint."""
        position = start
        while position < end:
            self._parts += 1
            if self._parts > MAX_PARTS:
                raise UnusableModel(f"the file has more than {MAX_PARTS} parts")
            tag, position = self._varint(position, end)
            number, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, position = self._varint(position, end)
                yield number, kind, value, value
                continue
            if kind == _BYTES:
                length, position = self._varint(position, end)
            elif kind in (_FIXED32, _FIXED64):
                length = 4 if kind == _FIXED32 else 8
            else:
                raise _not_onnx()
            if length > end - position or not number:
                raise _not_onnx()
            yield number, kind, position, position + length
            position += length

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while position < end and shift < 70:
            byte = self.content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, position
            shift += 7
        raise _not_onnx()


def _operator(texts: dict[int, str], domain: int, name: int) -> Operator:
    return texts.get(domain, ""), texts.get(name, "")


def _not_onnx() -> UnusableModel:
    return UnusableModel("protobuf parsing failed: this is no ONNX file, or not all of it")
