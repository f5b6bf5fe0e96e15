"""The geometry of sliding windows, shared by convolutions and pools.

From kernel, strides, dilations, pads, auto_pad and ceil_mode to what every window covers. Sizes are ints, or
None where an axis is symbolic; what depends on an unknown size is None too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.formulas import EmittedArrays, NumPyArrays, size_along
from analyzer.ops.support import ones

MOST_TAPS = 1 << 26
"""Positions of windows along one axis: 512 MiB of numbers. A window at each of 8,192 pixels, as wide, has as many."""


@dataclass(frozen=True)
class WindowAxis:
    """The windows along one axis. `before` and `after` are the pads, `out` the number of windows."""

    kernel: int
    stride: int
    dilation: int
    before: int | None
    after: int | None
    size: int | None
    out: int | None
    auto_pad: str = "NOTSET"

    @property
    def extent(self) -> int:
        """What one window spans."""
        return (self.kernel - 1) * self.dilation + 1

    @property
    def tail(self) -> int:
        """Zeros needed behind the input for the last window to be whole (ceil_mode reaches past the pads)."""
        assert self.out is not None and self.size is not None and self.before is not None
        return max(0, (self.out - 1) * self.stride + self.extent - self.size - self.before)

    def taps(self) -> np.ndarray:
        """The input position of every tap of every window, (out, kernel); outside where < 0 or ≥ size."""
        assert self.out is not None and self.before is not None
        _refuse_many(self.out * self.kernel)
        starts = np.arange(self.out) * self.stride - self.before
        return starts[:, None] + np.arange(self.kernel) * self.dilation

    def counts(self, include_pad: bool) -> np.ndarray:
        """The number of taps of every window that an average divides by."""
        assert self.size is not None and self.before is not None and self.after is not None
        assert self.out is not None
        _refuse_many(self.out)
        starts = np.arange(self.out) * self.stride - self.before
        after = self.after if include_pad else None
        found: np.ndarray = window_counts(NumPyArrays, self, starts, self.size, after)
        return found


def _refuse_many(count: int) -> None:
    """Raise UnsupportedOp for more positions than are computed."""
    if count > MOST_TAPS:
        raise UnsupportedOp(
            f"expected at most {MOST_TAPS:,} positions of the windows along an axis, found {count:,}. Fix: pool in "
            "several steps, with smaller windows and pads"
        )


def windows(
    sizes: Sequence[Any],
    kernel: Sequence[int],
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    strides: Sequence[int] | None = None,
) -> list[WindowAxis]:
    """The windows along each spatial axis, from a node's attributes and the input's spatial sizes."""
    rank = len(kernel)
    pads = list(pads or [0] * 2 * rank)
    strides, dilations = list(strides or ones(rank)), list(dilations or ones(rank))
    return [
        _axis(
            int(size) if isinstance(size, (int, np.integer)) else None,
            WindowAxis(k, s, d, before, after, None, None, auto_pad),
            ceil_mode,
        )
        for size, k, s, d, before, after in zip(
            sizes, kernel, strides, dilations, pads[:rank], pads[rank:], strict=True
        )
    ]


def _axis(size: int | None, axis: WindowAxis, ceil_mode: int) -> WindowAxis:
    k, s, d, extent = axis.kernel, axis.stride, axis.dilation, axis.extent
    before, after = axis.before, axis.after
    if axis.auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        out = None if size is None else -(-size // s)
        # Where the stride is 1 the pads do not depend on the size.
        if size is None and s > 1:
            return WindowAxis(k, s, d, None, None, size, out, axis.auto_pad)
        before, after = _same_pads(NumPyArrays, axis, size)
        return WindowAxis(k, s, d, int(before), int(after), size, out, axis.auto_pad)
    if axis.auto_pad == "VALID":
        before = after = 0
    if size is None:
        return WindowAxis(k, s, d, before, after, None, None, axis.auto_pad)
    assert before is not None and after is not None
    room = size + before + after - extent
    out = room // s + 1
    # A window that would start in the padding behind the input is left out.
    if ceil_mode and room % s and out * s < size + before:
        out += 1
    return WindowAxis(k, s, d, before, after, size, out, axis.auto_pad)


def pads_of(op: Builder, axis: WindowAxis, x: Tensor, position: int) -> tuple[Any, Any]:
    """Return the pads before and after the input along one axis: ints, or Emitted vectors of one."""
    if axis.before is not None and axis.after is not None:
        return axis.before, axis.after
    return _same_pads(EmittedArrays(op, np.int64), axis, size_along(op, x, position))


def _same_pads(xp: Any, axis: WindowAxis, size: Any) -> tuple[Any, Any]:
    """Return the pads of auto_pad=SAME along an axis, which give ⌈size / stride⌉ windows."""
    if axis.stride == 1:
        total = axis.extent - 1
    else:
        total = xp.maximum((size - 1) // axis.stride * axis.stride + axis.extent - size, 0)
    before = total // 2 if axis.auto_pad == "SAME_UPPER" else (total + 1) // 2
    return before, total - before


def window_counts(xp: Any, axis: WindowAxis, starts: Any, size: Any, after: Any) -> Any:
    """Return the number of taps that an average divides by, of each of the windows that start there.

    after: the size of the pad after the input where the elements of pads count, else None.
    """

    def taps_before(bound: Any) -> Any:
        # The taps lie a dilation apart.
        reach = xp.maximum(bound - starts, 0) + (axis.dilation - 1)
        return xp.minimum(reach // axis.dilation, axis.kernel)

    # No tap lies before the pads.
    return taps_before(size) - taps_before(0) if after is None else taps_before(size + after)
