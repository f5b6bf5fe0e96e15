"""One node as the rules see it: static shapes, constants, and the cells of its inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.graph.graph import Graph, Node
from analyzer.placement.cells import Cells
from analyzer.types import Sizes

Outcome = Cells | Sequence[Cells | None] | None
"""The cells of the outputs of a node: of all of them, of each one, or None where they have none."""


@dataclass(frozen=True)
class PlacedNode:
    """A node. `parts` are the cells of its inputs, None for an input without any."""

    graph: Graph
    node: Node
    parts: tuple[Cells | None, ...]

    @property
    def data(self) -> Cells | None:
        """The cells of the first input."""
        return self.parts[0]

    def shape(self, index: int = 0) -> Sizes:
        """The shape of an input. Raises UnknownSize where an axis is not known."""
        return sizes_of(self.graph, self.node.inputs[index])

    def output_shape(self, index: int = 0) -> Sizes:
        """The shape of an output. Raises UnknownSize where an axis is not known."""
        return sizes_of(self.graph, self.node.outputs[index])

    def constant(self, index: int) -> np.ndarray | None:
        """The value of an input that is omitted (None) or known before running. Raises UnknownSize otherwise."""
        if index >= len(self.node.inputs) or not self.node.inputs[index]:
            return None
        value = self.graph.tensors[self.node.inputs[index]].constant
        if value is None:
            raise UnknownSize
        return value

    def full(self, index: int = 0) -> np.ndarray:
        """The cell of every element of an input that has cells."""
        part = self.parts[index]
        assert part is not None
        return part.over(self.shape(index))


class UnknownSize(Exception):
    """A rule needs a size, or an index, that is only known when the model runs."""


def sizes_of(graph: Graph, name: str) -> Sizes:
    """The shape of a tensor. Raises UnknownSize where an axis is not known."""
    shape = graph.tensors[name].shape
    sizes = tuple(size for size in shape or () if isinstance(size, int))
    if shape is None or len(sizes) != len(shape):
        raise UnknownSize
    return sizes
