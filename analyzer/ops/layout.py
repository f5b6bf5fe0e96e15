"""Slice and Pad: the ops that cut and grow tensors along their axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.formulas import Emitted, EmittedArrays, NumPyArrays, size_along
from analyzer.ops.registry import Affine, Homogeneous, register
from analyzer.ops.support import (
    constant_ints,
    flat_positions,
    insert_zeros,
    ints,
    is_zero,
    ones,
    onnx_dtype,
    place,
    scatter_flat,
    zeros_like,
)
from analyzer.ops.windowed import conv_gradient

# From 0 to what exporters write for the end: the whole axis, whatever its size.
_WHOLE = 2**31 - 1


def _slices(shape: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> dict[int, range]:
    """The positions that a Slice takes along each axis it names."""
    first, last = ints(starts), ints(ends)
    along = list(range(len(first))) if axes is None else ints(axes)
    strides = ones(len(first)) if steps is None else ints(steps)
    return {
        axis % len(shape): _positions(int(shape[axis]), a, b, s)
        for axis, a, b, s in zip(along, first, last, strides, strict=True)
    }


def _positions(size: int, start: int, end: int, step: int) -> range:
    """Return the positions from `start` on, as Python slices, where an index past an end is the end.

    With a negative step, element 0 is never passed.
    """
    first, lowest = _first(NumPyArrays, size, start, step), 0 if step > 0 else -1
    return range(int(first), int(_bounded(NumPyArrays, size, end, lowest, size + lowest)), step)


def _first(xp: Any, size: Any, start: Any, step: int) -> Any:
    """Return the first position that a Slice takes."""
    return _bounded(xp, size, start, 0, size if step > 0 else size - 1)


def _bounded(xp: Any, size: Any, index: Any, lowest: int, highest: Any) -> Any:
    """Return an index, which counts from the end where it is negative, within bounds."""
    if isinstance(index, int):
        index = index + size if index < 0 else index
    else:
        index = xp.where(index < 0, index + size, index)
    return xp.minimum(xp.maximum(index, lowest), highest)


@register
class Slice(Homogeneous):
    inactive = frozenset({1, 2, 3, 4})

    def torch(torch, x, starts, ends, axes=None, steps=None):
        for axis, taken in _slices(x.shape, starts, ends, axes, steps).items():
            x = _taken(x, axis, taken, lambda t, axis: t.flip(axis))
        return x

    def tensorflow(tf, x, starts, ends, axes=None, steps=None):
        for axis, taken in _slices(x.shape, starts, ends, axes, steps).items():
            x = _taken(x, axis, taken, lambda t, axis: tf.reverse(t, [axis]))
        return x

    def vjp(op, g, y, x, starts, ends, axes=None, steps=None):
        entry = lambda: _unslice(op, g, y, x, starts, ends, axes, steps)  # noqa: E731
        return entry, None, None, None, None


def _taken(x: Any, axis: int, taken: range, flip: Any) -> Any:
    if taken.step < 0:
        # torch has no negative steps: take the same positions upwards, then turn round.
        upwards = taken[::-1]
        return flip(_taken(x, axis, upwards, flip), axis)
    head = (slice(None),) * axis
    stop = max(taken.start, taken[-1] + 1 if len(taken) else taken.start)
    return x[(*head, slice(taken.start, stop, taken.step))]


def _unslice(
    op: Builder, g: Tensor, y: Tensor, x: Tensor, starts: Tensor, ends: Tensor, axes: Any, steps: Any
) -> Tensor:
    """Emit zeros of the shape of x with g where the Slice took it."""
    along, strides = (constant_ints(t) if t is not None else [] for t in (axes, steps))
    first, last = (_each(op, t) for t in (starts, ends))
    if x.shape is None or along is None or strides is None or first is None or last is None:
        # Without the axes or steps, the positions of all elements are sliced.
        return scatter_flat(op, g, op.Slice(flat_positions(op, x), starts, ends, axes, steps), x)
    along = [axis % len(x.shape) for axis in along or range(len(first))]
    taken = list(zip(along, first, last, strides or ones(len(along)), strict=True))
    if any(step != 1 and _is_open(size_along(op, x, axis), a, b) for axis, a, b, step in taken):
        # What is taken may be empty, and has no zeros between its elements then.
        return scatter_flat(op, g, op.Slice(flat_positions(op, x), starts, ends, axes, steps), x)
    shape: list[Any] = list(x.shape)
    spread, before, turned = ones(len(shape)), {}, []
    for axis, a, b, step in taken:
        if step == 1 and isinstance(a, int) and a == 0 and isinstance(b, int) and b >= _WHOLE:
            continue
        size = size_along(op, x, axis)
        count: Any = size_along(op, y, axis)
        if not _is_open(size, a, b):
            count = len(_positions(size, a, b, step))
            if not count:
                return zeros_like(op, x)
        low = _first(EmittedArrays(op, np.int64) if _is_open(size, a) else NumPyArrays, size, a, step)
        if step < 0:
            turned.append(axis)
            low = low + (count - 1) * step
        shape[axis], spread[axis] = count if isinstance(count, int) else None, abs(step)
        before[axis] = low if _is_open(low) else int(low)
    if turned:
        many = len(turned)
        g = op.Slice(g, [-1] * many, [-(2**62)] * many, turned, [-1] * many)
    g, grown = insert_zeros(op, g, tuple(shape), spread)
    return place(op, g, grown, list(before.values()), x, list(before))


def _each(op: Builder, t: Tensor) -> list[Any] | None:
    """Return the elements of a vector, as ints or Emitted; None where their number is unknown."""
    known = constant_ints(t)
    count = t.shape[0] if t.shape else None
    if known is not None or not isinstance(count, int):
        return known
    wide = t if t.dtype == np.int64 else op.Cast(t, to=onnx_dtype(np.dtype(np.int64)))
    return [Emitted(op, op.Slice(wide, [i], [i + 1])) for i in range(count)]


def _is_open(*sizes: Any) -> bool:
    """Return whether one of these is known only when running."""
    return any(isinstance(size, Emitted) for size in sizes)


@register
class Pad(Affine):
    inactive = frozenset({1, 3})

    def torch(torch, x, pads, value=None, axes=None, *, mode):
        widths = _widths(x.shape, pads, axes)
        if mode == "constant":
            flat = [p for pair in reversed(widths) for p in pair]
            # The value may carry a gradient: pad a mask, and choose by it.
            if value is not None and value.requires_grad:
                inside = torch.nn.functional.pad(torch.ones_like(x, dtype=torch.bool), flat)
                return torch.where(inside, torch.nn.functional.pad(x, flat), value)
            return torch.nn.functional.pad(x, flat, value=0 if value is None else value.item())
        for axis, index in _sources(x.shape, widths, mode).items():
            x = x.index_select(axis, torch.as_tensor(index, device=x.device))
        return x

    def tensorflow(tf, x, pads, value=None, axes=None, *, mode):
        widths = _widths(x.shape, pads, axes)
        if mode != "constant":
            for axis, index in _sources(x.shape, widths, mode).items():
                x = tf.gather(x, index, axis=axis)
            return x
        for axis, (before, after) in enumerate(widths):
            if before < 0 or after < 0:
                stop = int(x.shape[axis]) - max(-after, 0)
                x = x[(*(slice(None),) * axis, slice(max(-before, 0), max(stop, 0)))]
        grown = [(max(before, 0), max(after, 0)) for before, after in widths]
        y = tf.pad(x, grown)
        if value is None:
            return y
        # tf.pad passes no gradient to its value: choose by a mask.
        return tf.where(tf.pad(tf.ones(x.shape, tf.bool), grown), y, tf.reshape(value, []))

    def vjp(op, g, y, x, pads, value=None, axes=None, *, mode):
        def of_x():
            if mode != "constant":
                return scatter_flat(op, g, op.Pad(flat_positions(op, x), pads, None, axes, mode=mode), x)
            cropped = None if known is None or x.shape is None else _by_convolution(op, g, known, x, axes)
            return cropped or op.Pad(g, _negated(op, pads), None, axes)

        def of_value():
            added = op.Pad(zeros_like(op, x), pads, 1.0, axes)
            return op.ReduceSum(op.Mul(g, added), keepdims=0)

        known = constant_ints(pads)
        if mode == "constant" and known is not None and not any(known):
            return g, None, None, None
        return of_x, None, of_value, None

    # The padding value where it is padded, which does not depend on x.
    def residual(op, active, y, x, pads, value=None, axes=None, *, mode):
        if mode != "constant" or is_zero(value):
            return None
        if active[0]:
            return None if active[2] else op.Pad(zeros_like(op, x), pads, value, axes)
        return op.Pad(x, pads, None, axes)


def _by_convolution(op: Builder, g: Tensor, pads: list[int], x: Tensor, axes: Tensor | None) -> Tensor | None:
    """The gradient of a padded x where the padded gradient is a convolution's: one that does not compute the pads."""
    places = range(x.rank) if axes is None else constant_ints(axes)
    if places is None or min(pads) < 0:
        return None
    begins, ends = [0] * x.rank, [0] * x.rank
    for axis, before, after in zip(places, pads, pads[len(pads) // 2 :], strict=False):
        begins[axis], ends[axis] = before, after
    return conv_gradient.cropped(op, g, begins, ends)


def _negated(op: Builder, pads: Tensor) -> Any:
    known = constant_ints(pads)
    return op.Neg(pads) if known is None else [-pad for pad in known]


def _widths(shape: Any, pads: Any, axes: Any) -> list[tuple[int, int]]:
    """(before, after) of every axis."""
    flat = ints(pads)
    count = len(flat) // 2
    along = range(count) if axes is None else [axis % len(shape) for axis in ints(axes)]
    widths = [(0, 0)] * len(shape)
    for position, axis in enumerate(along):
        widths[axis] = (flat[position], flat[count + position])
    return widths


def _sources(shape: Any, widths: list[tuple[int, int]], mode: Any) -> dict[int, np.ndarray]:
    """For each padded axis, the position that every element of the result is a copy of."""
    found = {}
    for axis, (before, after) in enumerate(widths):
        if before or after:
            own = np.arange(int(shape[axis]))
            own = own[max(-before, 0) : len(own) - max(-after, 0)]
            found[axis] = np.pad(own, (max(before, 0), max(after, 0)), mode=mode)
    return found
