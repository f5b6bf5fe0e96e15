"""The cells of a tensor: for every element, the part of the image that it stands for.

A grid divides the whole image into equal cells, so many along each spatial axis; a cell is a number, counted
row by row. An element without a cell (a class token, padding) has −1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Grid = tuple[int, ...]
NOWHERE = -1


@dataclass(frozen=True)
class Cells:
    """The cell of every element of one sample. `index` has 1 along the axes that the cell does not depend on."""

    grid: Grid
    index: np.ndarray

    def over(self, shape: Sequence[int]) -> np.ndarray:
        """The cell of every element of a tensor of this shape."""
        return np.broadcast_to(self.index, shape)

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which the cell changes."""
        return tuple(axis for axis, size in enumerate(self.index.shape) if size > 1)


def cells_of(grid: Grid, index: np.ndarray) -> Cells | None:
    """Cells without the axes along which nothing changes; None where no element has one, or all have the same.

    One position that is picked out, such as the last step of a sequence, speaks for the whole of it.
    """
    if math.prod(grid) == 1 or (index == NOWHERE).all():
        return None
    for axis, size in enumerate(index.shape):
        first = index.take([0], axis)
        if size > 1 and (index == first).all():
            index = first
    return Cells(grid, np.ascontiguousarray(index)) if index.size > 1 else None


def regular(grid: Grid, rank: int, axes: Sequence[int]) -> Cells:
    """A tensor that has the image's spatial axes, one for one."""
    shape = [1] * rank
    for axis, size in zip(axes, grid, strict=True):
        shape[axis] = size
    order = np.argsort(axes)
    index = np.arange(math.prod(grid)).reshape(grid).transpose(order)
    return Cells(grid, np.ascontiguousarray(index.reshape(shape)))


def is_regular(cells: Cells, axes: Sequence[int]) -> bool:
    """Whether these axes are the image's own, one for one and in order."""
    rank = cells.index.ndim
    if len(axes) != len(cells.grid) or any(axis >= rank for axis in axes):
        return False
    plain = regular(cells.grid, rank, axes).index
    return plain.shape == cells.index.shape and bool((plain == cells.index).all())


def spans(cells: Cells, axes: Sequence[int]) -> bool:
    """Whether these axes are the image's own and show all of it: `is_regular`, with padding of any mode around it."""
    if len(axes) != len(cells.grid) or any(axis not in axes for axis in cells.axes):
        return False
    index = cells.index.transpose([*axes, *(a for a in range(cells.index.ndim) if a not in axes)])
    index = index.reshape(index.shape[: len(axes)])
    padding = index == NOWHERE
    for along, position in enumerate(np.unravel_index(np.where(padding, 0, index), cells.grid)):
        lines = np.moveaxis(np.where(padding, NOWHERE, position), along, 0).reshape(index.shape[along], -1)
        line = lines.max(axis=1, keepdims=True)
        if not ((lines == line) | (lines == NOWHERE)).all():
            return False
        if not np.array_equal(np.unique(line[line != NOWHERE]), np.arange(cells.grid[along])):
            return False
    return True


def merged(parts: Sequence[Cells], shape: Sequence[int]) -> Cells | None:
    """The cells of what is computed element by element from several tensors; None where they contradict."""
    grids = {part.grid for part in parts}
    if len(grids) != 1:
        return None
    rank = len(shape)
    total: np.ndarray | None = None
    for part in parts:
        index = part.index.reshape((1,) * (rank - part.index.ndim) + part.index.shape)
        if total is None:
            total = index
            continue
        clash = (total != index) & (total != NOWHERE) & (index != NOWHERE)
        if clash.any():
            return None
        total = np.maximum(total, index)
    assert total is not None
    return cells_of(grids.pop(), total)


def contracted(cells: Cells, shape: Sequence[int], axes: Sequence[int]) -> Cells | None:
    """The cells after a sum over axes, which are kept with length 1.

    Where the sum mixes cells, what it mixes must be equal blocks that tile the grid: a patch embedding, or a pooling
    written as Reshape and mean. The blocks are then the cells of a coarser grid. A sum over everything has no place.
    """
    touched = [axis for axis in axes if cells.index.shape[axis] > 1]
    if not touched:
        return cells
    moved = np.moveaxis(cells.index, touched, range(-len(touched), 0))
    kept = moved.shape[: moved.ndim - len(touched)]
    rows = moved.reshape(math.prod(kept), -1)
    blocks = _blocks(cells.grid, rows)
    if blocks is None:
        return None
    grid, index = blocks
    result = index.reshape([1 if a in touched else size for a, size in enumerate(cells.index.shape)])
    return cells_of(grid, result)


def _blocks(grid: Grid, rows: np.ndarray) -> tuple[Grid, np.ndarray] | None:
    """The coarser grid whose cells the rows of cells fill, and each row's cell."""
    if (rows == NOWHERE).any():
        return None
    positions = np.stack(np.unravel_index(rows, grid), axis=-1)
    low, high = positions.min(axis=1), positions.max(axis=1)
    extent = high[0] - low[0] + 1
    equal = (high - low + 1 == extent).all() and (low % extent == 0).all()
    if not equal or any(size % part for size, part in zip(grid, extent, strict=True)):
        return None
    distinct = (np.diff(np.sort(rows, axis=1), axis=1) != 0).sum(axis=1) + 1
    if (distinct != math.prod(extent)).any():
        return None
    coarse = tuple(int(size // part) for size, part in zip(grid, extent, strict=True))
    return coarse, np.ravel_multi_index(tuple((low // extent).T), coarse)
