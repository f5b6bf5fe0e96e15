"""Lay a term out by samples and by cells: where in the image each of its elements stands.

Reads a model at the sizes of its inputs, once; gives a Placement for every tensor of the decomposition. What no rule
places has a Placement without cells, which is enough to sum it sample by sample.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyzer.cells import Cells, Grid, find_cells
from analyzer.cells.cells import NOWHERE
from analyzer.emitter import Emitter
from analyzer.errors import AnalysisError
from analyzer.graph import Graph, Tensor
from analyzer.layout import channel_axes, input_channel_axis
from analyzer.samples import Place


@dataclass(frozen=True)
class Placement:
    """How a tensor's elements are laid out.

    Read row by row it is `blocks` blocks of N runs, one a sample; a sample has `elements` elements. `grid` divides the
    image, and is () where the tensor has no place in it. In memory the elements of a sample are (before, cells, after);
    where they are not, `members` (cells, k) lists the elements of each cell, `elements` standing for none.
    Not `separable`: which part belongs to which sample cannot be told. Not `shown`: kept out of every map.
    """

    blocks: int
    elements: int
    grid: Grid = ()
    before: int = 1
    members: np.ndarray | None = None
    separable: bool = True
    shown: bool = True

    @property
    def partial(self) -> bool:
        """Whether some elements, such as a class token's, have no cell."""
        return self.members is not None and int((self.members < self.elements).sum()) < self.elements

    def rows(self, op: Emitter, term: Tensor) -> Tensor:
        """The term as (N, elements); as one row where samples cannot be told apart."""
        if not self.separable:
            return op.Reshape(term, [1, -1])
        if self.blocks > 1:
            runs = op.Reshape(term, [self.blocks, -1, self.elements // self.blocks])
            term = op.Transpose(runs, perm=[1, 0, 2])
        return op.Reshape(term, [-1, self.elements])

    def by_cell(self, op: Emitter, term: Tensor) -> Tensor:
        """The term as (N, before, cells, after): all elements of a cell along axes 1 and 3."""
        cells = math.prod(self.grid)
        rows = self.rows(op, term)
        if self.members is None:
            return op.Reshape(rows, [-1, self.before, cells, self.elements // (self.before * cells)])
        if self.members.max() == self.elements:
            rows = op.Pad(rows, [0, 1], None, [1])
        gathered = op.Gather(rows, self.members.reshape(-1), axis=1)
        return op.Reshape(gathered, [-1, 1, cells, self.members.shape[1]])


@dataclass(frozen=True)
class Layout:
    """The placements of a decomposition, for inputs of one shape.

    image: the root that the map is drawn over; sizes: its spatial axes'. placements: by tensor.
    """

    image: str
    sizes: Grid
    placements: Mapping[str, Placement]


def lay_out(
    graph: Graph,
    fixed: Graph,
    places: Mapping[str, Place],
    samples: int,
    roots: Sequence[str],
    tensors: Sequence[str],
) -> Layout:
    """Place `tensors`, the roots among them.

    graph: the model; places: where samples lie in its tensors; fixed: the model at the sizes of its inputs, with
    `samples` samples.
    """
    image = next((name for name in roots if len(_shape(fixed, name)) > 2), roots[0])
    spatial, cells = _best_reading(graph, fixed, image, tensors)
    symbols = _symbols(graph, fixed)
    placements = {}
    for name in tensors:
        shape = _shape(fixed, name)
        if name not in places:
            placements[name] = Placement(1, math.prod(shape), separable=False)
            continue
        plain = Placement(places[name].blocks(shape, symbols), math.prod(shape) // samples)
        placements[name] = _placed(plain, cells.get(name), shape, samples)
    sizes = tuple(_shape(fixed, image)[axis] for axis in spatial)
    if not placements[image].grid:
        # A number a sample: its own one cell.
        placements[image] = replace(placements[image], grid=(placements[image].elements,))
        sizes = placements[image].grid
    return Layout(image, sizes, placements)


def _best_reading(
    graph: Graph, fixed: Graph, image: str, tensors: Sequence[str]
) -> tuple[tuple[int, ...], dict[str, Cells]]:
    """The image's spatial axes and the cells that follow from them.

    Where no layer tells channels first from channels last, that reading is taken which places more tensors.
    """
    rank = len(_shape(fixed, image))
    if rank <= 2:
        spatial = tuple(range(1, rank))
        return spatial, find_cells(fixed, image, spatial) if spatial else {}
    known = channel_axes(graph)
    likely = input_channel_axis(graph, image, known)
    candidates = [likely] if image in known else [likely, *({1, rank - 1} - {likely})]
    readings = []
    for channel in candidates:
        spatial = tuple(axis for axis in range(1, rank) if axis != channel)
        readings.append((spatial, find_cells(fixed, image, spatial)))
    return max(readings, key=lambda reading: sum(name in reading[1] for name in tensors))


def _placed(plain: Placement, cells: Cells | None, shape: tuple[int, ...], samples: int) -> Placement:
    """A placement with the cells of a tensor of `samples` samples."""
    if cells is None:
        return plain
    count = math.prod(cells.grid)
    wide = cells.axes
    if not wide:
        return Placement(plain.blocks, plain.elements, cells.grid)
    inner = slice(wide[0], wide[-1] + 1)
    contiguous = cells.index.shape[inner] == shape[inner]
    if contiguous and plain.blocks == 1 and np.array_equal(cells.index.reshape(-1), np.arange(count)):
        before = math.prod(shape[: wide[0]]) // samples
        return Placement(1, plain.elements, cells.grid, before)
    every = cells.over(shape).reshape(plain.blocks, samples, -1)[:, 0].reshape(-1)
    order = np.argsort(every, kind="stable")
    order = order[np.searchsorted(every[order], NOWHERE, side="right") :]
    counts = np.bincount(every[order], minlength=count)
    members = np.full((count, counts.max()), plain.elements)
    members[every[order], np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)] = order
    return Placement(plain.blocks, plain.elements, cells.grid, members=members)


def _shape(fixed: Graph, name: str) -> tuple[int, ...]:
    shape = fixed.tensors[name].shape
    sizes = tuple(size for size in shape or () if isinstance(size, int))
    if shape is None or len(sizes) != len(shape):
        raise AnalysisError(f"the size of {name!r} depends on the data: it cannot be laid out before running")
    return sizes


def _symbols(graph: Graph, fixed: Graph) -> dict[str, int]:
    """What the symbols in shapes stand for at these sizes."""
    found: dict[str, int] = {}
    for name in graph.inputs:
        for axis, size in zip(graph.tensors[name].shape or (), fixed.tensors[name].shape or (), strict=True):
            if isinstance(axis, str) and isinstance(size, int):
                found[axis] = size
    return found
