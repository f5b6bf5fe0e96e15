"""Find the axis along which a target counts the classes of an output.

From a Target and the shape of its output to an axis. Refuses shapes that leave two readings, with the target to write.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyzer.errors import TargetError
from analyzer.graph.graph import Tensor
from analyzer.target.target import Target


def class_axis(target: Target, y: Tensor) -> int:
    """The axis of the classes, counted from the first."""
    assert y.shape is not None
    rank, axis = len(y.shape), target.axis
    if rank <= 1 and axis in (None, 1):
        return 1
    if axis is None:
        return _only_axis(target, y)
    if not isinstance(axis, (int, np.integer)) or not -rank < axis < rank or axis % rank == 0:
        raise TargetError(
            f"the output {y.name!r} {y.shape} has no axis {axis!r} of classes after the samples. Fix: give axis=1 or "
            "axis=-1"
        )
    return int(axis) % rank


def _only_axis(target: Target, y: Tensor) -> int:
    """The axis of the classes where the shapes leave one reading. Raises TargetError where they leave two."""
    assert y.shape is not None
    rank = len(y.shape)
    axes = sorted({1, rank - 1})
    if target.mask is None:
        fitting = [axis for axis in axes if y.shape[axis] != 1] or axes[:1]
    elif isinstance(target.mask, str):
        fitting = axes[:1]
    else:
        shape = np.shape(target.mask)
        rests = {axis: (*y.shape[1:axis], *y.shape[axis + 1 :]) for axis in axes}
        fitting = [a for a in axes if any(fits(own, rests[a]) for own in (shape, shape[1:]))] or axes[:1]
    if len(fitting) == 1:
        return fitting[0]
    if target.mask is not None:
        raise TargetError(
            f"the classes of {y.name!r} {y.shape} may lie on axis 1 or on axis -1. Fix: give axis=1 or axis=-1"
        )
    index = target.index.tolist() if isinstance(target.index, np.ndarray) else target.index
    numbers = ", ".join("ijkl"[: rank - 1])
    raise TargetError(
        f"the target {index} has two readings for the output {y.name!r} {y.shape}. Fix: Target(index={index}, axis=1) "
        f"sums a class on axis 1 over the other axes, Target(index={index}, axis=-1) one on the last axis "
        f"(--target {index}@all, {index}@all@last); Target(index=({numbers})) explains one element"
    )


def fits(shape: Sequence[int], expected: Sequence[int | str | None]) -> bool:
    """Return whether a shape has the sizes that are known."""
    return len(shape) == len(expected) and all(
        have == want for have, want in zip(shape, expected, strict=True) if isinstance(want, int)
    )
