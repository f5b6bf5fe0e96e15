"""Windows that slide along axes: convolution, pooling and resizing move cells as they move positions.

From the cells of a tensor and the Reach of an op along each of its axes to the cells of the output. An axis is followed
where its positions are evenly spaced cells, with or without padding around them: those of a crop, a strided or a
reversed slice included. Anything else has no such output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from analyzer.placement.cells import NOWHERE, Cells, Grid, cells_of, cut, with_axis

HALF = Fraction(1, 2)


@dataclass(frozen=True)
class Reach:
    """Along one axis the output's positions are `step` of the input's apart, and the first starts at `offset`."""

    step: Fraction
    offset: Fraction = Fraction(0)


def convolving(kernel: int, stride: int, begin: int, dilation: int) -> Reach:
    """A position stands at the centre of its window; `begin` positions of padding come first."""
    return Reach(Fraction(stride), Fraction((kernel - 1) * dilation - (stride - 1), 2) - begin)


def transposed(kernel: int, stride: int, begin: int, dilation: int) -> Reach:
    """The transpose of a convolution: an input stands at the centre of the outputs that it reaches."""
    first = Fraction(2 * begin - (kernel - 1) * dilation, 2) / stride
    return Reach(Fraction(1, stride), first + HALF - HALF / stride)


@dataclass(frozen=True)
class _Run:
    """Positions `first` to `first + count` of a tensor's axis are the cells from `low` on, every `step`th."""

    first: int
    count: int
    low: int
    step: int
    reversed: bool


def slid(
    cells: Cells, reaches: Mapping[int, Reach], shape: Sequence[int], out: Sequence[int]
) -> Cells | None:
    """The cells of one grid after an op that reaches along axes of a tensor of `shape` and gives one of shape `out`.

    What changes along other axes stays as it is. None where an axis is not followed.
    """
    (grid,) = cells.grids
    positions = spread_out(cells)
    for number, position in enumerate(positions):
        along = [axis for axis, size in enumerate(position.shape) if size > 1]
        if not set(along) & set(reaches):
            continue
        if len(along) > 1:
            return None
        axis = along[0]
        found = _moved_along(grid, number, position.reshape(-1), reaches[axis], out[axis])
        if found is None:
            return None
        grid, line = found
        positions[number] = line.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    arrays = np.broadcast_arrays(*positions)
    nowhere = np.any([array == NOWHERE for array in arrays], axis=0)
    index = np.ravel_multi_index(tuple(np.where(nowhere, 0, array) for array in arrays), grid.sizes)
    return cells_of((grid,), np.where(nowhere, NOWHERE, index))


def spread_out(cells: Cells) -> list[np.ndarray]:
    """The position along each of the grid's axes, with 1 along the tensor's axes that it does not depend on.

    Padding and channels without a place are looked through.
    """
    nowhere = cells.index == NOWHERE
    found = []
    for position in np.unravel_index(np.where(nowhere, 0, cells.index), cells.grids[0].sizes):
        position = np.where(nowhere, NOWHERE, position)
        for axis, size in enumerate(position.shape):
            if size > 1:
                most = position.max(axis=axis, keepdims=True)
                if ((position == most) | (position == NOWHERE)).all():
                    position = most
        found.append(position)
    return found


def _moved_along(
    grid: Grid, axis: int, line: np.ndarray, reach: Reach, out: int
) -> tuple[Grid, np.ndarray] | None:
    """The grid with one axis as the output has it, and the output's positions on it."""
    repeats = _repeats(line)
    if repeats > 1:
        grid = with_axis(grid, axis, grid.sizes[axis] * repeats, grid.window[axis])
        line = line * repeats + np.arange(len(line)) % repeats
    run = _run_of(line)
    if run is None:
        return None
    # The run's own cells; a stride that leaves out cells at the end covers what a strided convolution would.
    whole = run.low < run.step and run.count == math.ceil(grid.sizes[axis] / run.step)
    end = grid.sizes[axis] if whole else min(run.low + run.step * run.count, grid.sizes[axis])
    part = cut(grid, axis, 0 if whole else run.low, end, run.count)
    start, width = part.window[axis][0], part.width(axis)
    window = part.window[axis]
    # Padded to keep its extent: the output divides what the input did.
    if math.ceil(run.count / reach.step) != out:
        first = start + (reach.offset - run.first) * width
        window = (first, first + out * reach.step * width)
    moved = with_axis(part, axis, out, window)
    return moved, np.arange(out)[::-1] if run.reversed else np.arange(out)


def _repeats(line: np.ndarray) -> int:
    """How often each cell stands in a row, as after upsampling by repetition; 1 where the rows are unequal."""
    ends = np.flatnonzero(np.diff(line)) + 1
    lengths = np.diff([0, *ends, len(line)])
    even = len(lengths) > 1 and (lengths == lengths[0]).all() and (line != NOWHERE).all()
    return int(lengths[0]) if even else 1


def _run_of(line: np.ndarray) -> _Run | None:
    """The longest evenly spaced run of cells; None where anything but padding of some mode is left of it."""
    steps = np.diff(line)
    usable = (line[1:] != NOWHERE) & (line[:-1] != NOWHERE) & (steps != 0)
    step = 1
    if usable.any():
        values, counts = np.unique(steps[usable], return_counts=True)
        # As often up as down, as where a reflection is as long as the image: up.
        step = int(values[counts == counts.max()].max())
    same = np.concatenate([[False], usable & (steps == step), [False]])
    edges = np.flatnonzero(np.diff(same.astype(np.int8)))
    if len(edges):
        k = int(np.argmax(edges[1::2] - edges[::2]))
        first, count = int(edges[2 * k]), int(edges[2 * k + 1] - edges[2 * k]) + 1
    else:
        known = np.flatnonzero(line != NOWHERE)
        first, count = int(known[0]), 1
    run = line[first : first + count]
    rest = np.concatenate([line[:first], line[first + count :]])
    if not np.isin(rest, [NOWHERE, *run]).all():
        return None
    return _Run(first, count, int(run.min()), abs(step), step < 0)
