"""Where the samples of a batch lie in every tensor: a Transpose moves them, a Reshape merges them with other axes.

From a Graph to one Place a tensor. Read row by row, a tensor of N samples is a number of blocks, each of N equal
runs, one a sample: (6, N, 16) is 6 blocks of N runs of 16 elements, and so is (6·N, 4, 4) into which it is reshaped.
A tensor of which it cannot be told has no Place; nothing is guessed. Which inputs have an axis of samples, and how many
these are, is told by the shapes that the graph states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyzer.graph.graph import Graph, Node
from converters.types import Shape

_KEEPS_ORDER = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Place:
    """The axis that holds the samples; its size is blocks · N · runs, where blocks is `factor` times `symbols`."""

    axis: int
    factor: int = 1
    symbols: tuple[str, ...] = ()

    def blocks(self, shape: Sequence[int], sizes: Mapping[str, int]) -> int:
        """The number of blocks in a tensor of this shape. sizes: of the symbols in shapes."""
        lead = math.prod(shape[: self.axis]) * self.factor
        return lead * math.prod(sizes[symbol] for symbol in self.symbols)

    def joined(self, pieces: Sequence[np.ndarray], size: int, total: int) -> np.ndarray:
        """One array of `total` samples from pieces of `size` samples each, what the last has over cut off."""
        shape = pieces[0].shape
        blocks = math.prod(shape[: self.axis]) * self.factor
        runs = np.concatenate(
            [piece.reshape(blocks, size, piece.size // (blocks * size)) for piece in pieces], axis=1
        )[:, :total]
        # A tensor may be empty: the size of no axis can be left to be worked out.
        grown = shape[self.axis] // size * total
        return runs.reshape(*shape[: self.axis], grown, *shape[self.axis + 1 :])


def find_places(graph: Graph) -> dict[str, Place]:
    """The Place of every tensor of which it can be told. The first axis of every input is the batch."""
    shapes = [shape for name in graph.inputs if (shape := graph.tensors[name].shape)]
    if not shapes:
        return {}
    batch = shapes[0][0]
    if batch == 0:
        return {}
    others = {axis for shape in shapes for axis in shape[1:] if isinstance(axis, str)}
    places = {name: Place(0) for name in graph.inputs if graph.tensors[name].shape}
    for node in graph.nodes:
        first = graph.tensors[node.inputs[0]] if node.inputs and node.inputs[0] in places else None
        for name in node.outputs:
            shape = graph.tensors[name].shape if name else None
            if not shape:
                continue
            if first is not None and first.shape and node.op_type in _KEEPS_ORDER:
                place = _reshaped(first.shape, places[first.name], shape, others, batch)
            elif first is not None and node.op_type == "Transpose":
                order = node.attributes["perm"] or list(reversed(range(len(shape))))
                place = replace(places[first.name], axis=order.index(places[first.name].axis))
            else:
                place = _by_shape(graph, node, places, shape, batch, others)
            if place is not None:
                places[name] = place
    return places


def _reshaped(
    before: Shape, place: Place, after: Shape, others: set[str], batch: int | str | None
) -> Place | None:
    """The order of elements is kept: the blocks that led the samples lead them still."""
    factor, symbols = place.factor, list(place.symbols)
    for size in before[: place.axis]:
        if isinstance(size, int):
            factor *= size
        elif size in others:
            symbols.append(str(size))
        else:
            return None
    for axis, size in enumerate(after):
        if isinstance(size, int):
            if isinstance(batch, int) and factor == 1 and size % batch == 0:
                return Place(axis)
            if size and factor % size == 0:
                factor //= size
            elif isinstance(batch, int) and size % (factor * batch) == 0:
                return Place(axis, factor)
            else:
                return None
        elif size in symbols:
            symbols.remove(str(size))
        else:
            return Place(axis, factor, tuple(symbols)) if size not in others else None
    return None


def _by_shape(
    graph: Graph,
    node: Node,
    places: Mapping[str, Place],
    shape: Shape,
    batch: int | str | None,
    others: set[str],
) -> Place | None:
    """Other ops keep the samples on an axis of their own: the one of the batch's size, or of a multiple of it."""
    given = [(places[name], graph.tensors[name].shape or ()) for name in node.inputs if name in places]
    kept = {
        place for place, own in given
        if len(own) == len(shape) and isinstance(batch, int) and own[place.axis] == shape[place.axis]
    }  # fmt: skip
    if len(kept) == 1:
        return kept.pop()
    equal = [axis for axis, size in enumerate(shape) if size is not None and size == batch]
    if len(equal) == 1:
        return Place(equal[0])
    free = [axis for axis, size in enumerate(shape) if not isinstance(size, int) and size not in others]
    blocks = {(place.factor, place.symbols) for place, _ in given}
    if equal or len(free) != 1 or len(blocks) != 1:
        return None
    return Place(free[0], *blocks.pop())


def fixed_batch(graph: Graph) -> int | None:
    """The number of samples that all inputs of a graph state, or None where it is free."""
    sizes = {shape[0] for name in graph.inputs if (shape := graph.tensors[name].shape)}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None


def batched_inputs(graph: Graph) -> tuple[str, ...]:
    """The inputs whose first axis counts samples: those that leave it open, or all that state one size.

    Inputs of stated, different sizes are no samples of anything: a table of weights, a list of indices.
    """
    first = {name: shape[0] for name in graph.inputs if (shape := graph.tensors[name].shape)}
    open_ended = tuple(name for name, size in first.items() if not isinstance(size, int))
    if open_ended:
        return open_ended
    return tuple(first) if len(set(first.values())) == 1 else ()


def samples_in(graph: Graph, feeds: Mapping[str, np.ndarray]) -> int:
    """The number of samples that the feeds hold."""
    return next((feeds[name].shape[0] for name in batched_inputs(graph)), 1)
