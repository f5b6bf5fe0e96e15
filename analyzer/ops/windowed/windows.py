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
from analyzer.graph.builder import Emitter
from analyzer.graph.graph import Tensor
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
        low, high = (-self.before, self.size + self.after) if include_pad else (0, self.size)
        # The taps lie a dilation apart: from the first at or after `low` to the last before `high`.
        first, end = (np.clip(-((starts - bound) // self.dilation), 0, self.kernel) for bound in (low, high))
        return end - first


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
        if size is not None and out is not None:
            total: int | None = max(0, (out - 1) * s + extent - size)
        else:
            # Where the stride is 1 the pads do not depend on the size.
            total = extent - 1 if s == 1 else None
        before = None if total is None else (total // 2 if axis.auto_pad == "SAME_UPPER" else -(-total // 2))
        after = None if total is None or before is None else total - before
        return WindowAxis(k, s, d, before, after, size, out, axis.auto_pad)
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


def begin(op: Emitter, axis: WindowAxis, x: Tensor, position: int) -> int | Tensor:
    """The pad before the input along one axis: an int, or an int64 tensor (1,) where it depends on x."""
    if axis.before is not None:
        return axis.before
    size = op.Shape(x, start=position, end=position + 1)
    # max(0, (ceil(size / s) − 1) s + extent − size), half of it before.
    windows_less_one = op.Div(op.Sub(size, [1]), [axis.stride])
    missing = op.Sub(op.Add(op.Mul(windows_less_one, [axis.stride]), [axis.extent]), size)
    total = op.Max(missing, [0])
    return op.Div(op.Add(total, [int(axis.auto_pad == "SAME_LOWER")]), [2])
