"""Regions of a graph: the nodes between one computed tensor and another, when nobody else reads what lies between.

Reads a MutableGraph. Only nodes that `nodes` can compute, and moves of elements between them, are taken in, and no more
than MOST of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard, reads
from converters.passes.joins.nodes import OPS, REDUCTIONS
from converters.types import Shape

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Ops that rearrange the elements of their first input. TensorFlow's layouts leave them within an activation."""

MOST = 24
"""Nodes of a region: twice what the longest known form of a normalization takes."""


@dataclass(frozen=True)
class Region:
    """Nodes in topological order, and the one computed tensor that they read; the last of them computes the result.

    structure: a number of its TensorUses. Regions with one number compute the same of their entries, in one precision.
    reduces: whether a node sums over axes.
    """

    entry: str
    nodes: tuple[onnx.NodeProto, ...]
    structure: int
    reduces: bool

    @property
    def last(self) -> onnx.NodeProto:
        """The node that computes the result."""
        return self.nodes[-1]

    @property
    def begins_with_a_move(self) -> bool:
        """Whether what the region computes is computed from a rearranged entry alone."""
        # Nodes are in topological order: a move that alone reads the entry comes first.
        if self.nodes[0].op_type not in MOVES:
            return False
        return [node.op_type in MOVES for node in self.nodes if self.entry in node.input] == [True]

    @property
    def moves(self) -> bool:
        """Whether a node rearranges elements."""
        return any(node.op_type in MOVES for node in self.nodes)


@dataclass(frozen=True)
class _Part:
    """A node that may lie in a region.

    reads: the computed tensors that it reads. meaning: what it computes of them, without their names.
    """

    node: onnx.NodeProto
    reads: tuple[str, ...]
    meaning: tuple[object, ...]
    reduces: bool


class TensorUses:
    """Who computes and who reads what, worked out once."""

    def __init__(self, graph: MutableGraph) -> None:
        self._graph = graph
        self._positions = {
            name: index for index, node in enumerate(graph.nodes) for name in node.output if name
        }
        self._nodes = graph.nodes
        self._consumed: set[int] = set()
        self._parts: dict[int, _Part | None] = {}
        self._structures: dict[tuple[object, ...], int] = {}

    def consume(self, region: Region) -> None:
        """Leave the nodes of a region out from now on."""
        self._consumed.update(id(node) for node in region.nodes)

    def regions_before(self, last: onnx.NodeProto) -> list[Region]:
        """The regions that end with a node, the smallest first; none begins or ends with a move."""
        found: list[Region] = []
        inside: list[onnx.NodeProto] = []
        # How often each tensor is read inside, and its number in the order of the walk.
        inner, numbers = dict[str, int](), {last.output[0]: 0}
        frontier, name, structure, reduces = {last.output[0]}, last.output[0], 0, False
        part = None if last.op_type in MOVES else self._part(name)
        while part is not None:
            frontier.remove(name)
            inside.append(part.node)
            for given in part.reads:
                inner[given] = inner.get(given, 0) + 1
                numbers.setdefault(given, len(numbers))
                frontier.add(given)
            operands = tuple(numbers[given] for given in part.reads)
            structure = self._numbered((structure, numbers[name], part.meaning, operands))
            reduces = reduces or part.reduces
            if len(frontier) == 1:
                region = Region(next(iter(frontier)), tuple(reversed(inside)), structure, reduces)
                found += [] if region.begins_with_a_move else [region]
            # All paths from the latest tensor to the end are inside: whoever else reads it is outside for good.
            name = max(frontier, key=lambda name: self._positions.get(name, -1))
            if inner[name] != self._graph.use_count(name) or len(inside) == MOST:
                break
            part = self._part(name)
        return found

    def _numbered(self, structure: tuple[object, ...]) -> int:
        """Return the number of a walk: that of its first steps, and the latest step."""
        return self._structures.setdefault(structure, len(self._structures) + 1)

    def _part(self, name: str) -> _Part | None:
        """The node that computes a tensor, where it may lie in a region."""
        position = self._positions.get(name, -1)
        if position < 0 or id(self._nodes[position]) in self._consumed:
            return None
        if position not in self._parts:
            self._parts[position] = self._read(self._nodes[position])
        return self._parts[position]

    def _read(self, node: onnx.NodeProto) -> _Part | None:
        """Return what depends on constants alone as None: it is not folded yet, and may not lie in a region."""
        if not is_standard(node, *OPS, *MOVES) or any(node.output[1:]):
            return None
        computed = tuple(name for name in reads(node) if name not in self._graph.constants)
        meaning = self._moved(node) if node.op_type in MOVES else self._computed(node)
        return _Part(node, computed, meaning, node.op_type in REDUCTIONS) if computed else None

    def _moved(self, node: onnx.NodeProto) -> tuple[object, ...]:
        history = moved(self._graph, node)
        return (
            "move",
            node.input[0] in self._graph.constants,
            history if history is None else tuple(history),
        )

    def _computed(self, node: onnx.NodeProto) -> tuple[object, ...]:
        attributes = tuple(sorted(entry.SerializeToString() for entry in node.attribute))
        operands: list[object] = []
        for name in node.input:
            value = self._graph.constants.get(name)
            if value is None:
                operands.append(bool(name))
            elif is_number(self._graph, name, node):
                operands.append((value.dtype.name, value.tobytes()))
            else:
                operands.append("array")
        return (node.op_type, attributes, *operands)


def is_number(graph: MutableGraph, name: str, reader: onnx.NodeProto) -> bool:
    """Whether a constant is omitted, or one number that does not raise its reader's rank."""
    value = graph.constants.get(name)
    if value is None or value.size != 1:
        return not name
    operands = [graph.shape(other) for other in reader.input if other not in graph.constants]
    ranks = [len(shape) for shape in operands if shape is not None]
    return value.ndim <= max(ranks, default=1)


def moved(graph: MutableGraph, node: onnx.NodeProto) -> list[int] | Shape | None:
    """Return what a move does to the elements: a permutation, or else the shape; None where it is not known."""
    if node.op_type == "Transpose":
        permutation: list[int] | None = attribute(node, "perm")
        return permutation
    shape = graph.shape(node.output[0])
    return None if shape is None or None in shape else shape
