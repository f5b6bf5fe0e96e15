"""The cells of a tensor: for every element, the part of the image that it stands for.

A grid divides a window of the image into equal cells, so many along each spatial axis. A tensor that joins several
resolutions has several grids, and its cells are numbered through them, each row by row. An element without a cell (a
class token, padding) has −1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import accumulate

import numpy as np

Interval = tuple[Fraction, Fraction]
NOWHERE = -1


@dataclass(frozen=True)
class Grid:
    """`sizes` cells along the image's spatial axes.

    window: what the cells divide, in pixels, by axis. frame: what the tensor was computed from; a crop narrows both, a
    convolution without padding narrows the window alone, by what its outermost centres leave out.
    """

    sizes: tuple[int, ...]
    window: tuple[Interval, ...]
    frame: tuple[Interval, ...]

    @property
    def cells(self) -> int:
        """How many there are."""
        return math.prod(self.sizes)

    def width(self, axis: int) -> Fraction:
        """A cell's extent along an axis, in pixels."""
        start, stop = self.window[axis]
        return (stop - start) / self.sizes[axis]

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest coordinates of every cell, (cells, axes) each."""
        positions = np.stack(np.unravel_index(np.arange(self.cells), self.sizes), axis=-1)
        start = np.array([float(low) for low, _ in self.window])
        width = np.array([float(self.width(axis)) for axis in range(len(self.sizes))])
        low: np.ndarray = start + positions * width
        return low, low + width


def whole(sizes: tuple[int, ...], image: tuple[int, ...] | None = None) -> Grid:
    """The grid of these sizes over a whole image; by default a cell a pixel."""
    extent = tuple((Fraction(0), Fraction(size)) for size in image or sizes)
    return Grid(sizes, extent, extent)


@dataclass(frozen=True)
class Cells:
    """The cell of every element of one sample. `index` has 1 along the axes that the cell does not depend on."""

    grids: tuple[Grid, ...]
    index: np.ndarray

    def over(self, shape: Sequence[int]) -> np.ndarray:
        """The cell of every element of a tensor of this shape."""
        return np.broadcast_to(self.index, shape)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which the cell changes."""
        return tuple(axis for axis, size in enumerate(self.index.shape) if size > 1)

    @property
    def count(self) -> int:
        """The cells of all grids together."""
        return sum(grid.cells for grid in self.grids)

    @property
    def offsets(self) -> tuple[int, ...]:
        """The number of each grid's first cell."""
        return (0, *accumulate(grid.cells for grid in self.grids[:-1]))

    def edges(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest coordinates of every cell of every grid."""
        low, high = zip(*(grid.edges() for grid in self.grids), strict=True)
        return np.concatenate(low), np.concatenate(high)


def cells_of(grids: Sequence[Grid], index: np.ndarray) -> Cells | None:
    """Cells without the grids that no element uses and without the axes along which nothing changes.

    None where no element has a cell, or all have the same: one position that is picked out, such as the last step of a
    sequence, speaks for the whole of it.
    """
    if len(grids) > 1:
        grids, index = _used(grids, index)
    if sum(grid.cells for grid in grids) <= 1 or (index == NOWHERE).all():
        return None
    for axis, size in enumerate(index.shape):
        first = index.take([0], axis)
        if size > 1 and (index == first).all():
            index = first
    return Cells(tuple(grids), np.ascontiguousarray(index)) if index.size > 1 else None


def alone(cells: Cells) -> list[Cells]:
    """The cells of each grid by itself."""
    parts = []
    for first, grid in zip(cells.offsets, cells.grids, strict=True):
        own = (cells.index >= first) & (cells.index < first + grid.cells)
        parts.append(Cells((grid,), np.where(own, cells.index - first, NOWHERE)))
    return parts


def _used(grids: Sequence[Grid], index: np.ndarray) -> tuple[list[Grid], np.ndarray]:
    """The grids of which some cell occurs, and the cells numbered through these."""
    kept, result = [], np.full_like(index, NOWHERE)
    first = total = 0
    for grid in grids:
        own = (index >= first) & (index < first + grid.cells)
        if own.any():
            result[own] = index[own] - first + total
            kept.append(grid)
            total += grid.cells
        first += grid.cells
    return kept, result


def regular(grid: Grid, rank: int, axes: Sequence[int]) -> Cells:
    """A tensor that has the grid's axes, one for one."""
    shape = [1] * rank
    for axis, size in zip(axes, grid.sizes, strict=True):
        shape[axis] = size
    order = np.argsort(axes)
    index = np.arange(grid.cells).reshape(grid.sizes).transpose(order)
    return Cells((grid,), np.ascontiguousarray(index.reshape(shape)))


def alike(a: Grid, b: Grid) -> bool:
    """Whether two grids are one: as many cells, and windows that differ by less than a cell."""
    return a.sizes == b.sizes and all(
        abs(a.window[axis][end] - b.window[axis][end]) < min(a.width(axis), b.width(axis))
        for axis in range(len(a.sizes))
        for end in (0, 1)
    )


def united(parts: Sequence[Cells]) -> tuple[tuple[Grid, ...], list[np.ndarray]]:
    """The grids of several tensors, each once, and every tensor's cells numbered through them."""
    grids: list[Grid] = []
    places: list[list[int]] = []
    for part in parts:
        chosen = []
        for grid in part.grids:
            known = next((k for k, other in enumerate(grids) if alike(grid, other)), len(grids))
            if known == len(grids):
                grids.append(grid)
            else:
                grids[known] = replace(grids[known], frame=_hull(grids[known].frame, grid.frame))
            chosen.append(known)
        places.append(chosen)
    offsets = (0, *accumulate(grid.cells for grid in grids))
    indices = []
    for part, chosen in zip(parts, places, strict=True):
        index = part.index
        for known, first, grid in zip(chosen, part.offsets, part.grids, strict=True):
            if offsets[known] != first:
                own = (part.index >= first) & (part.index < first + grid.cells)
                index = np.where(own, part.index - first + offsets[known], index)
        indices.append(index)
    return tuple(grids), indices


def _hull(a: tuple[Interval, ...], b: tuple[Interval, ...]) -> tuple[Interval, ...]:
    return tuple((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))


def merged(parts: Sequence[Cells], shape: Sequence[int]) -> Cells | None:
    """The cells of what is computed element by element from several tensors; None where they contradict.

    Where a fine cell meets a coarse one that holds its centre, as under a gate of lower resolution, it is the fine one.
    """
    finest_first = sorted(parts, key=lambda part: -part.count)
    grids, indices = united(finest_first)
    rank = len(shape)
    total, *others = (index.reshape((1,) * (rank - index.ndim) + index.shape) for index in indices)
    low, high = Cells(grids, total).edges() if others else (None, None)
    for index in others:
        a, b = np.broadcast_arrays(total, index)
        clash = (a != b) & (a != NOWHERE) & (b != NOWHERE)
        if clash.any():
            assert low is not None and high is not None
            centre = (low[a[clash]] + high[a[clash]]) / 2
            if ((centre < low[b[clash]]) | (centre > high[b[clash]])).any():
                return None
        total = np.where(a == NOWHERE, b, a)
    return cells_of(grids, total)


def contracted(cells: Cells, axes: Sequence[int]) -> Cells | None:
    """The cells after a sum over axes, which are kept with length 1.

    Where the sum mixes cells, what it mixes must be equal blocks that tile the grid or a part of it: a patch embedding,
    or a pooling written as Reshape and mean. The blocks are then the cells of a coarser grid. A sum over everything
    has no place.
    """
    touched = [axis for axis in axes if cells.index.shape[axis] > 1]
    if not touched:
        return cells
    if len(cells.grids) > 1:
        return None
    moved = np.moveaxis(cells.index, touched, range(-len(touched), 0))
    kept = moved.shape[: moved.ndim - len(touched)]
    blocks = _blocks(cells.grids[0], moved.reshape(math.prod(kept), -1))
    if blocks is None:
        return None
    grid, index = blocks
    result = index.reshape([1 if a in touched else size for a, size in enumerate(cells.index.shape)])
    return cells_of((grid,), result)


def _blocks(grid: Grid, rows: np.ndarray) -> tuple[Grid, np.ndarray] | None:
    """The coarser grid whose cells the rows of cells fill, and each row's cell."""
    if (rows == NOWHERE).any():
        return None
    positions = np.stack(np.unravel_index(rows, grid.sizes), axis=-1)
    low, high = positions.min(axis=1), positions.max(axis=1)
    extent, origin = high[0] - low[0] + 1, low.min(axis=0)
    if (high - low + 1 != extent).any() or ((low - origin) % extent).any():
        return None
    distinct = (np.diff(np.sort(rows, axis=1), axis=1) != 0).sum(axis=1) + 1
    if (distinct != math.prod(extent)).any():
        return None
    index = (low - origin) // extent
    coarse = grid
    for axis, size in enumerate(index.max(axis=0) + 1):
        first = int(origin[axis])
        coarse = cut(coarse, axis, first, first + int(size * extent[axis]), int(size))
    return coarse, np.ravel_multi_index(tuple(index.T), coarse.sizes)


def cut(grid: Grid, axis: int, first: int, end: int, size: int) -> Grid:
    """The cells `first` to `end` along an axis, divided anew into `size` cells."""
    start, stop = grid.window[axis]
    low, high = grid.frame[axis]
    width = grid.width(axis)
    window = (start + first * width, start + end * width)
    # What a tensor sees beyond the centres of its outermost cells, it sees beyond those of any of its cells.
    frame = (max(low, window[0] - (start - low)), min(high, window[1] + (high - stop)))
    return with_axis(grid, axis, size, window, frame)


def with_axis(grid: Grid, axis: int, size: int, window: Interval, frame: Interval | None = None) -> Grid:
    """A grid that is another along one axis."""
    sizes, windows, frames = list(grid.sizes), list(grid.window), list(grid.frame)
    sizes[axis], windows[axis], frames[axis] = size, window, frame or frames[axis]
    return Grid(tuple(sizes), tuple(windows), tuple(frames))
