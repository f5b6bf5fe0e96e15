"""The gradient of a strided depthwise Conv's input as a Conv for each phase of the stride.

With stride s the elements i ≡ a (mod s) of the gradient see the taps k ≡ a + p (mod s) only: a Conv with stride 1 by
these, on the same g. The phases are then woven into one another. Measured on ONNX Runtime, whose ConvTranspose goes
through the channels of a group one by one, it is two to three times faster for kernels of 5 × 5, and no faster for
3 × 3, where weaving costs as much as it saves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.support import static
from analyzer.ops.windowed.windows import WindowAxis

_END = 2**62
_SMALLEST = 4


@dataclass(frozen=True)
class _Phase:
    """One axis of one phase: its last tap, and the pads that line its Conv up with the others."""

    last: int
    before: int
    after: int


def by_phases(
    op: Builder, g: Tensor, w: Tensor, outs: Sequence[Any], axes: Sequence[WindowAxis], group: int
) -> Tensor | None:
    """g spread by the depthwise kernel over what its windows saw; None where that is better done otherwise.

    outs: the spatial sizes of g.
    """
    shape = static(w)
    if shape is None or shape[:2] != (group, 1) or group == 1 or len(axes) != 2:
        return None
    if any(a.dilation != 1 or a.stride < 2 or a.kernel < _SMALLEST for a in axes):
        return None
    if any(a.size is None or a.before is None for a in axes) or not all(isinstance(out, int) for out in outs):
        return None
    counts = [-(-int(a.size or 0) // a.stride) for a in axes]
    phases = [_phases(a, int(out), count) for a, out, count in zip(axes, outs, counts, strict=True)]
    if any(min(p.before, p.after) < 0 for along in phases for p in along):
        return None
    return _woven(op, g, w, axes, phases, counts, group)


def _phases(a: WindowAxis, out: int, count: int) -> list[_Phase]:
    """The phases along an axis, each with `count` elements."""
    found = []
    for place in range(a.stride):
        first = (place + (a.before or 0)) % a.stride
        last = first + (a.kernel - 1 - first) // a.stride * a.stride
        # Element m of the phase sees g from m + lowest to m + highest.
        lowest, highest = ((place + (a.before or 0) - tap) // a.stride for tap in (last, first))
        found.append(_Phase(last, -lowest, count + highest - out))
    return found


def _woven(
    op: Builder,
    g: Tensor,
    w: Tensor,
    axes: Sequence[WindowAxis],
    phases: Sequence[Sequence[_Phase]],
    counts: Sequence[int],
    group: int,
) -> Tensor:
    (high, wide), (tall, long) = axes, counts
    rows = []
    for down in phases[0]:
        parts = []
        for across in phases[1]:
            taps = op.Slice(w, [down.last, across.last], [-_END, -_END], [2, 3], [-high.stride, -wide.stride])
            pads = [down.before, across.before, down.after, across.after]
            parts.append(op.Unsqueeze(op.Conv(g, taps, pads=pads, group=group), [-1]))
        rows.append(op.Reshape(op.Concat(*parts, axis=-1), [-1, group, tall, 1, long * wide.stride]))
    whole = op.Reshape(op.Concat(*rows, axis=3), [-1, group, tall * high.stride, long * wide.stride])
    sizes = [int(a.size or 0) for a in axes]
    if sizes == [tall * high.stride, long * wide.stride]:
        return whole
    return op.Slice(whole, [0, 0], sizes, [2, 3])
