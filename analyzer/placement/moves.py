"""Ops that move elements and change none: the op itself, applied to the cells."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from analyzer.placement.cells import NOWHERE, Cells, cells_of, united
from analyzer.placement.step import Outcome, PlacedNode


def reshape(step: PlacedNode) -> Outcome:
    index, sizes = step.full(), step.output_shape()
    # A model whose sizes contradict one another fails when it runs.
    return _moved(step, index.reshape(sizes)) if index.size == math.prod(sizes) else None


def _transpose(step: PlacedNode) -> Outcome:
    assert step.data is not None
    order = step.node.attributes["perm"] or list(reversed(range(step.data.index.ndim)))
    if len(order) != step.data.index.ndim:
        return None
    return Cells(step.data.grids, step.data.index.transpose(order))


def _slice(step: PlacedNode) -> Outcome:
    starts, ends, axes, steps = (step.constant(index) for index in range(1, 5))
    assert starts is not None and ends is not None
    along = range(len(starts)) if axes is None else axes
    strides = np.ones(len(starts), np.int64) if steps is None else steps
    index = step.full()
    for start, end, axis, stride in zip(starts, ends, along, strides, strict=True):
        index = index.take(_positions(int(start), int(end), int(stride), index.shape[axis]), int(axis))
    return _moved(step, index)


def _positions(start: int, end: int, stride: int, size: int) -> np.ndarray:
    """The positions that ONNX's Slice takes; ends beyond the axis are clamped, as in Python."""
    # Python reads −1 as "before the last"; ONNX's most negative end of a reversed slice is "through the first".
    stop = None if stride < 0 and end < -size else end
    return np.arange(size)[slice(start, stop, stride)]


def _split(step: PlacedNode) -> Outcome:
    axis, index = step.node.attributes["axis"] or 0, step.full()
    ends = np.cumsum([step.output_shape(i)[axis] for i in range(len(step.node.outputs))])
    return [_moved(step, piece) for piece in np.split(index, ends[:-1], axis)]


def _concat(step: PlacedNode) -> Outcome:
    axis = step.node.attributes["axis"]
    placed = [part for part in step.parts if part is not None]
    grids, indices = united(placed)
    numbered = iter(indices)
    pieces = [
        np.broadcast_to(NOWHERE if part is None else next(numbered), step.shape(i))
        for i, part in enumerate(step.parts)
    ]
    return cells_of(grids, np.concatenate(pieces, axis))


def _gather(step: PlacedNode) -> Outcome:
    positions = step.constant(1)
    assert positions is not None
    return _moved(step, step.full().take(positions, step.node.attributes["axis"] or 0))


def _expand(step: PlacedNode) -> Outcome:
    return _moved(step, np.broadcast_to(step.full(), step.output_shape()))


def _tile(step: PlacedNode) -> Outcome:
    repeats = step.constant(1)
    assert repeats is not None
    return _moved(step, np.tile(step.full(), repeats))


def _pad(step: PlacedNode) -> Outcome:
    pads, axes = step.constant(1), step.constant(3)
    assert pads is not None
    index = step.full()
    along = range(index.ndim) if axes is None else axes
    widths = [(0, 0)] * index.ndim
    for position, axis in enumerate(along):
        widths[int(axis)] = (int(pads[position]), int(pads[position + len(pads) // 2]))
    kept = tuple(
        slice(-min(a, 0), size + min(b, 0)) for (a, b), size in zip(widths, index.shape, strict=True)
    )
    grown = [(max(a, 0), max(b, 0)) for a, b in widths]
    mode: Any = step.node.attributes["mode"]
    if mode == "constant":
        return _moved(step, np.pad(index[kept], grown, constant_values=NOWHERE))
    # ONNX's edge, reflect and wrap are NumPy's.
    return _moved(step, np.pad(index[kept], grown, mode=mode))


def _moved(step: PlacedNode, index: np.ndarray) -> Cells | None:
    assert step.data is not None
    return cells_of(step.data.grids, index)


MOVES: dict[str, Callable[[PlacedNode], Outcome]] = {
    "Reshape": reshape,
    "Flatten": reshape,
    "Squeeze": reshape,
    "Unsqueeze": reshape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Split": _split,
    "Concat": _concat,
    "Gather": _gather,
    "Expand": _expand,
    "Tile": _tile,
    "Pad": _pad,
}
