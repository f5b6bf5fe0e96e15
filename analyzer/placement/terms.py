"""Lay a term out by samples and by cells: where in the inputs each of its elements stands.

Reads a model at the sizes of its inputs, once; gives a Placement for every tensor of the decomposition. What no rule
places has a Placement without spots, which is enough to sum it sample by sample. With several inputs an element may
stand in more than one of them, as a difference of two images does: it then counts in equal parts for each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyzer.errors import AnalysisError
from analyzer.graph.batch_axis import Place
from analyzer.graph.builder import Builder
from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.graph.graph import Graph, Tensor
from analyzer.placement import Cells, Grid, find_cells, whole
from analyzer.placement.cells import NOWHERE
from analyzer.types import Sizes


@dataclass(frozen=True)
class Spot:
    """Where a tensor's elements stand in one input, `root`: the cells of its grids, numbered one grid after the other.

    In memory the elements of a sample are (before, positions, after), of which the positions are the cells. inside:
    the first position that is a cell where others are none, such as a class token; None where all are cells. Where the
    elements lie in another order, `members` (cells, k) lists those of each cell, the number of all elements standing
    for none. share: how much of each element counts here, as an array that broadcasts to the elements; None for all of
    it.
    """

    root: str
    grids: tuple[Grid, ...]
    before: int = 1
    members: np.ndarray | None = None
    share: np.ndarray | None = None
    inside: tuple[int, int] | None = None
    positions: int | None = None

    @property
    def cells(self) -> int:
        """The cells of all grids."""
        return sum(grid.cells for grid in self.grids)

    @property
    def count(self) -> int:
        """The positions that elements have, the cells among them."""
        return self.positions if self.positions is not None else self.cells


@dataclass(frozen=True)
class Placement:
    """How a tensor's elements are laid out.

    Read row by row it is `blocks` blocks of N runs, one a sample; a sample has `elements` elements. `spots` say where
    these stand, at most one an input. partial: some elements, such as a class token's, stand nowhere.
    Not `separable`: which part belongs to which sample cannot be told. Not `shown`: kept out of every map.
    """

    blocks: int
    elements: int
    spots: tuple[Spot, ...] = ()
    partial: bool = False
    separable: bool = True
    shown: bool = True

    def rows(self, op: Builder, term: Tensor) -> Tensor:
        """The term as (N, elements); as one row where samples cannot be told apart."""
        if not self.separable:
            return op.Reshape(term, [1, -1])
        if self.blocks > 1:
            runs = op.Reshape(term, [self.blocks, -1, self.elements // self.blocks])
            term = op.Transpose(runs, perm=[1, 0, 2])
        return op.Reshape(term, [-1, self.elements])

    def by_cell(self, op: Builder, term: Tensor, spot: Spot) -> Tensor:
        """The term as (N, before, cells, after): all elements of a cell along axes 1 and 3."""
        by_position = self.by_position(op, term, spot)
        if spot.inside is not None:
            first, count = spot.inside
            by_position = op.Slice(by_position, [first], [first + count], [2])
        return op.Unsqueeze(by_position, [3]) if self.after(spot) == 1 else by_position

    def by_position(self, op: Builder, term: Tensor, spot: Spot) -> Tensor:
        """The term as (N, before, positions, after), without the last axis where `after` is 1."""
        after = self.after(spot)
        behind = [] if after == 1 else [after]
        if spot.share is None and spot.members is None and self.separable and self.blocks == 1:
            return op.Reshape(term, [-1, spot.before, spot.count, *behind])
        rows = self.rows(op, term)
        if spot.share is not None:
            rows = op.Mul(rows, op.tensor(spot.share.astype(rows.dtype)))
        if spot.members is None:
            return op.Reshape(rows, [-1, spot.before, spot.count, *behind])
        if spot.members.max() == self.elements:
            rows = op.Pad(rows, [0, 1], None, [1])
        gathered = op.Gather(rows, spot.members.reshape(-1), axis=1)
        return op.Reshape(gathered, [-1, 1, spot.cells, *behind])

    def after(self, spot: Spot) -> int:
        """How many elements of a sample and a cell stand behind each other, in (before, positions, after)."""
        if spot.members is not None:
            return int(spot.members.shape[1])
        return self.elements // (spot.before * spot.count)


@dataclass(frozen=True)
class Placements:
    """The placements of a decomposition, for inputs of one shape.

    spatial: every root's spatial axes, over which its map is drawn; sizes: of these. placements: by tensor.
    """

    spatial: Mapping[str, tuple[int, ...]]
    sizes: Mapping[str, Sizes]
    placements: Mapping[str, Placement]


def lay_out(
    graph: Graph,
    fixed: Graph,
    places: Mapping[str, Place],
    samples: int,
    roots: Sequence[str],
    tensors: Sequence[str],
    known: Mapping[str, tuple[int, ...]],
) -> Placements:
    """Place `tensors`, the roots among them. known: the spatial axes of roots of which the caller knows them.

    graph: the model; places: where samples lie in its tensors; fixed: the model at the sizes of its inputs, with
    `samples` samples.
    """
    readings = read_roots(graph, fixed, roots, tensors, known)
    downstream = {root: graph.descendants([root]) for root in roots}
    symbols = _symbols(graph, fixed)
    placements = {}
    for name in tensors:
        shape = _shape(fixed, name)
        if name not in places:
            placements[name] = Placement(1, math.prod(shape), separable=False)
            continue
        blocks, elements = places[name].blocks(shape, symbols), math.prod(shape) // samples
        # A tensor without elements has no cells.
        cells = {
            root: found[name]
            for root, (_, found) in readings.items()
            if elements
            and name in found
            and (name == root or (name in downstream[root] and name not in roots))
        }
        placements[name] = _placed(Placement(blocks, elements), cells, shape, samples)
    sizes = {
        root: tuple(_shape(fixed, root)[axis] for axis in spatial) for root, (spatial, _) in readings.items()
    }
    for root in roots:
        if not placements[root].elements:
            raise AnalysisError(
                f"the input {root!r} holds no numbers for these inputs: nothing is attributed to it. "
                "Fix: name the inputs that are attributed, wrt=[…] (--wrt)"
            )
        if not any(spot.root == root for spot in placements[root].spots):
            # A number a sample: its own one cell.
            sizes[root] = (placements[root].elements,)
            placements[root] = replace(placements[root], spots=(Spot(root, (whole(sizes[root]),)),))
    return Placements({root: spatial for root, (spatial, _) in readings.items()}, sizes, placements)


RootCells = tuple[tuple[int, ...], dict[str, Cells]]
"""A root's spatial axes, and the cells of all tensors that follow from them."""


def read_roots(
    graph: Graph,
    fixed: Graph,
    roots: Sequence[str],
    tensors: Sequence[str],
    known: Mapping[str, tuple[int, ...]],
) -> dict[str, RootCells]:
    """The reading of every root, as `lay_out` takes it."""
    return {
        root: (known[root], find_cells(fixed, root, known[root]))
        if root in known
        else _best_reading(graph, fixed, root, tensors)
        for root in roots
    }


def _best_reading(graph: Graph, fixed: Graph, root: str, tensors: Sequence[str]) -> RootCells:
    """A root's spatial axes and the cells that follow from them.

    Where no layer tells channels first from channels last, that reading is taken which keeps more tensors in place. In
    a sequence no layer tells for certain: a mean over the features may be written as a pooling.
    """
    shape = _shape(fixed, root)
    rank = len(shape)
    if rank <= 2:
        spatial = tuple(range(1, rank))
        return spatial, find_cells(fixed, root, spatial) if spatial else {}
    known = channel_axes(graph)
    # A sequence that nothing is known of is (N, steps, features).
    likely = input_channel_axis(graph, root, known) if root in known or rank > 3 else rank - 1
    candidates = [likely] if root in known and rank > 3 else [likely, *({1, rank - 1} - {likely})]
    readings = []
    for channel in candidates:
        spatial = tuple(axis for axis in range(1, rank) if axis != channel)
        readings.append((spatial, find_cells(fixed, root, spatial)))

    def kept(reading: RootCells) -> int:
        sizes = [shape[axis] for axis in reading[0]]
        found = [reading[1][name].grids for name in tensors if name in reading[1]]
        # What a layer sums over altogether is no axis of an image.
        return sum(all(_keeps_axes(grid, sizes) for grid in grids) for grids in found)

    return max(readings, key=kept)


def _keeps_axes(grid: Grid, sizes: Sequence[int]) -> bool:
    return all(cells > 1 or size == 1 for cells, size in zip(grid.sizes, sizes, strict=True))


def _placed(plain: Placement, cells: Mapping[str, Cells], shape: Sizes, samples: int) -> Placement:
    """A placement with the cells, by root, of a tensor of `samples` samples."""
    if not cells:
        return plain
    if len(cells) == 1:
        ((root, found),) = cells.items()
        spot = _in_order(plain, root, found, shape, samples)
        if spot is not None:
            return replace(plain, spots=(spot,), partial=spot.inside is not None)
    every = {
        root: found.over(shape).reshape(plain.blocks, samples, -1)[:, 0].reshape(-1)
        for root, found in cells.items()
    }
    times = np.sum([own != NOWHERE for own in every.values()], axis=0)
    spots = tuple(
        Spot(root, found.grids, 1, _members(every[root], found.count), _share(every[root], times))
        for root, found in cells.items()
    )
    return replace(plain, spots=spots, partial=bool((times == 0).any()))


def _share(every: np.ndarray, times: np.ndarray) -> np.ndarray | None:
    """How much of each element counts in one of the inputs, of which it stands in so many; None for all of it."""
    own = times[every != NOWHERE]
    if own.max() == 1:
        return None
    share: np.ndarray = 1 / (own[:1] if own.min() == own.max() else np.maximum(times, 1))
    return share


def _in_order(plain: Placement, root: str, cells: Cells, shape: Sizes, samples: int) -> Spot | None:
    """The spot of cells that lie together and in order, with elements of no cell before or after them; else None."""
    wide = cells.axes
    if not wide:
        return Spot(root, cells.grids)
    together = cells.index.shape[wide[0] : wide[-1] + 1] == shape[wide[0] : wide[-1] + 1]
    if not together or plain.blocks > 1:
        return None
    index, before = cells.index.reshape(-1), math.prod(shape[: wide[0]]) // samples
    first, count = int(np.argmax(index != NOWHERE)), cells.count
    outside = np.concatenate([index[:first], index[first + count :]])
    if not np.array_equal(index[first : first + count], np.arange(count)) or (outside != NOWHERE).any():
        return None
    if not outside.size:
        return Spot(root, cells.grids, before)
    return Spot(root, cells.grids, before, inside=(first, count), positions=index.size)


def _members(every: np.ndarray, cells: int) -> np.ndarray:
    """The elements of each cell, (cells, k), from the cell of each element."""
    order = np.argsort(every, kind="stable")
    order = order[np.searchsorted(every[order], NOWHERE, side="right") :]
    counts = np.bincount(every[order], minlength=cells)
    members = np.full((cells, counts.max()), len(every))
    members[every[order], np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)] = order
    return members


def _shape(fixed: Graph, name: str) -> Sizes:
    shape = fixed.tensors[name].shape
    sizes = tuple(size for size in shape or () if isinstance(size, int))
    if shape is None or len(sizes) != len(shape):
        raise AnalysisError(
            f"the size of {name!r} depends on the values of the input, and FullGrad lays tensors out before it runs. "
            "Fix: in the model, replace the selection of elements (boolean indexing, nonzero) by a product with a mask"
        )
    return sizes


def _symbols(graph: Graph, fixed: Graph) -> dict[str, int]:
    """What the symbols in shapes stand for at these sizes."""
    found: dict[str, int] = {}
    # The graph at fixed sizes has only the inputs that the explained output depends on.
    for name in fixed.inputs:
        for axis, size in zip(graph.tensors[name].shape or (), fixed.tensors[name].shape or (), strict=True):
            if isinstance(axis, str) and isinstance(size, int):
                found[axis] = size
    return found
