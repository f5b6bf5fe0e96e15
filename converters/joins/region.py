"""Regions of a graph: the nodes between one computed tensor and another, when nobody else reads what lies between.

Reads a Draft. Only nodes that `nodes` can compute, and moves of elements between them, are taken in, and no more
than MOST of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from converters.draft import Draft, is_standard, reads
from converters.joins.nodes import OPS, REDUCTIONS

MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")
"""Ops that rearrange the elements of their first input. TensorFlow's layouts leave them within an activation."""

MOST = 24
"""Nodes of a region: twice what the longest known form of a normalization takes."""


@dataclass(frozen=True)
class Region:
    """Nodes in topological order, and the one computed tensor that they read; the last of them computes the result."""

    entry: str
    nodes: tuple[onnx.NodeProto, ...]

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

    @property
    def reduces(self) -> bool:
        """Whether a node sums over axes."""
        return any(node.op_type in REDUCTIONS for node in self.nodes)


class Reader:
    """Who computes and who reads what, worked out once."""

    def __init__(self, draft: Draft) -> None:
        self._constants = draft.constants
        self._positions = {
            name: index for index, node in enumerate(draft.nodes) for name in node.output if name
        }
        self._nodes = draft.nodes
        self._uses = draft.uses()
        self._consumed: set[int] = set()

    def consume(self, region: Region) -> None:
        """Leave the nodes of a region out from now on."""
        self._consumed.update(id(node) for node in region.nodes)

    def regions_before(self, last: onnx.NodeProto) -> list[Region]:
        """The regions that end with a node, the smallest first; none begins or ends with a move."""
        if last.op_type in MOVES or not self._is_open(last):
            return []
        inside = {self._positions[last.output[0]]: last}
        inner: dict[str, int] = {}
        frontier = self._grow(last, inner, set())
        found = []
        while frontier:
            if len(frontier) == 1:
                nodes = tuple(inside[index] for index in sorted(inside))
                region = Region(next(iter(frontier)), nodes)
                found += [] if region.begins_with_a_move else [region]
            # All paths from the latest tensor to the end are inside: whoever else reads it is outside for good.
            name = max(frontier, key=lambda name: self._positions.get(name, -1))
            if name not in self._positions or inner[name] != self._uses[name] or len(inside) == MOST:
                break
            node = self._nodes[self._positions[name]]
            if not self._is_open(node):
                break
            frontier.remove(name)
            inside[self._positions[name]] = node
            self._grow(node, inner, frontier)
        return found

    def _is_open(self, node: onnx.NodeProto) -> bool:
        """Whether a node may lie in a region. What depends on constants alone is not folded yet, and may not."""
        return (
            is_standard(node, *OPS, *MOVES)
            and id(node) not in self._consumed
            and not any(node.output[1:])
            and any(name not in self._constants for name in reads(node))
        )

    def _grow(self, node: onnx.NodeProto, inner: dict[str, int], frontier: set[str]) -> set[str]:
        """Count what a node reads, and add it to the frontier."""
        for name in reads(node):
            if name not in self._constants:
                inner[name] = inner.get(name, 0) + 1
                frontier.add(name)
        return frontier
