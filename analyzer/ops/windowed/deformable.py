"""DeformConv: a convolution whose kernel reads at offsets of its own for every output, in any number of axes.

y = W · (mask ⊙ columns) + B, where columns are x sampled between its pixels. Differentiable in every input.
Refuses a weight whose shape is not known before running.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Tensor
from analyzer.ops.eager import Composed
from analyzer.ops.registry import ExplicitRule, Kink, register
from analyzer.ops.resampling import taps as at
from analyzer.ops.support import axis_size, cast, ones, per_channel, rank_of, reshape_like, static, sum_known
from analyzer.ops.windowed import conv_gradient


@dataclass(frozen=True)
class _Columns:
    """What the K taps of the kernel read for each of P outputs, and the shapes it goes through.

    image, offsets: x as (N·offset groups, channels, …), and how far each tap is moved along each axis,
    (N·offset groups, K·P, 1). by_tap: the shape (N, offset groups, channels, K, P). by_group: the shape
    (N, groups, channels · K, P) that the matrix (groups, outputs, channels · K) is multiplied with.
    """

    image: Tensor
    offsets: tuple[Tensor, ...]
    taps: at.Taps
    by_tap: Tensor
    by_group: Tensor
    matrix: Tensor


def _columns(
    op: Builder, x: Tensor, w: Tensor, offset: Tensor, *, group: int, offset_group: int, **geometry: Any
) -> _Columns:
    sizes = static(w)
    if sizes is None:
        raise UnsupportedOp(
            f"DeformConv: the shape of the weight {w.name!r} is unknown before running. {TRACED}"
        )
    count, channels = int(np.prod(sizes[2:])), sizes[1] * group // offset_group
    samples = axis_size(op, x, 0)
    spatial = [axis_size(op, x, axis) for axis in range(2, len(sizes))]
    image = op.Reshape(x, op.Concat(op.Mul(samples, offset_group), [channels], *spatial, axis=0))
    offsets, positions = _positions(op, offset, sizes[2:], **geometry)
    return _Columns(
        image,
        offsets,
        at.take_taps(op, image, positions, "linear", "zeros", 0),
        op.Concat(samples, [offset_group, channels, count, -1], axis=0),
        op.Concat(samples, [group, sizes[1] * count, -1], axis=0),
        op.Reshape(w, [group, sizes[0] // group, sizes[1] * count]),
    )


def _positions(
    op: Builder,
    offset: Tensor,
    kernel: tuple[int, ...],
    *,
    dilations: Sequence[int] | None,
    kernel_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
    strides: Sequence[int] | None,
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The offsets along each axis, and with them where the taps read, both (N·offset groups, K·P, 1)."""
    rank, count = len(kernel), int(np.prod(kernel))
    steps, spread, before = strides or ones(rank), dilations or ones(rank), pads or [0] * rank
    outs = [axis_size(op, offset, axis) for axis in range(2, 2 + rank)]
    by_tap = op.Reshape(offset, op.Concat([-1, count, rank], *outs, axis=0))
    offsets, positions = [], []
    for i, taps in enumerate(np.indices(kernel).reshape(rank, count)):
        moved = op.Squeeze(op.Slice(by_tap, [i], [i + 1], [2]), [2])
        # Where the kernel reads when nothing is moved: a number for every output, and one for every tap.
        starts = op.Mul(op.Range(np.asarray(0), op.Squeeze(outs[i], [0]), np.asarray(1)), steps[i])
        within = (taps * spread[i] - before[i]).reshape(-1, *ones(rank))
        unmoved = op.Add(op.Reshape(starts, [-1, *ones(rank - 1 - i)]), within)
        offsets.append(op.Reshape(moved, [0, -1, 1]))
        positions.append(op.Reshape(op.Add(moved, cast(op, unmoved, offset)), [0, -1, 1]))
    return tuple(offsets), tuple(positions)


def _read(op: Builder, columns: _Columns) -> Tensor:
    """What the taps read, by tap."""
    return op.Reshape(at.sample(op, columns.image, columns.taps), columns.by_tap)


def _masked(op: Builder, read: Tensor, mask: Tensor | None, columns: _Columns) -> Tensor:
    if mask is None:
        return read
    before, behind = op.Slice(columns.by_tap, [0], [2]), op.Slice(columns.by_tap, [3], [5])
    return op.Mul(read, op.Reshape(mask, op.Concat(before, [1], behind, axis=0)))


def _contract(op: Builder, read: Tensor, columns: _Columns, w: Tensor, offset: Tensor) -> Tensor:
    """The convolution proper, (N, outputs, …)."""
    flat = op.MatMul(columns.matrix, op.Reshape(read, columns.by_group))
    outs = [axis_size(op, offset, axis) for axis in range(2, rank_of(offset))]
    return op.Reshape(flat, op.Concat([0], axis_size(op, w, 0), *outs, axis=0))


def _deform_conv(
    op: Builder,
    x: Tensor,
    w: Tensor,
    offset: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    **attributes: Any,
) -> Tensor:
    columns = _columns(op, x, w, offset, **attributes)
    y = _contract(op, _masked(op, _read(op, columns), mask, columns), columns, w, offset)
    return y if b is None else op.Add(y, per_channel(op, b, rank_of(w)))


@register
class DeformConv(ExplicitRule):
    kinks = (Kink("a tap at a whole pixel", "to the offset the slope towards the next pixel"),)

    torch = tensorflow = Composed(_deform_conv)

    # At whole positions the slope is the one above them.
    def vjp(op, g, y, x, w, offset, b=None, mask=None, *, group, **attributes):
        columns = _columns(op, x, w, offset, group=group, **attributes)
        out = op.Reshape(g, [0, group, static(w)[0] // group, -1])
        of_masked = op.Reshape(op.MatMul(op.Transpose(columns.matrix, perm=[0, 2, 1]), out), columns.by_tap)
        image_shape = [axis_size(op, columns.image, axis) for axis in (0, 1)]
        of_samples = op.Reshape(_masked(op, of_masked, mask, columns), op.Concat(*image_shape, [-1], axis=0))

        def of_w():
            read = op.Reshape(_masked(op, _read(op, columns), mask, columns), columns.by_group)
            products = op.MatMul(out, op.Transpose(read, perm=[0, 1, 3, 2]))
            return reshape_like(op, op.ReduceSum(products, [0], keepdims=0), w)

        def of_offset():
            count = int(np.prod(static(w)[2:]))
            along = at.of_positions(op, of_samples, columns.image, columns.taps)
            parts = [op.Reshape(part, [0, count, 1, -1]) for part in along]
            return reshape_like(op, op.Concat(*parts, axis=2), offset)

        return (
            lambda: reshape_like(op, at.unsample(op, of_samples, columns.image, columns.taps), x),
            of_w,
            of_offset,
            lambda: conv_gradient.of_bias(op, g, rank_of(w) - 2),
            lambda: reshape_like(op, op.ReduceSum(op.Mul(of_masked, _read(op, columns)), [2]), mask),
        )

    # y − B is linear in x, in W and in the mask; J offset by the derivatives of the sampling weights.
    def residual(op, active, y, x, w, offset, b=None, mask=None, **attributes):
        moves = [*active, *[False] * (5 - len(active))]
        bias = None if b is None else per_channel(op, b, rank_of(w))
        carried = sum(moves[i] for i in (0, 1, 4))
        terms = [None if moves[3] else bias]
        if carried != 1:
            terms.append(op.Mul(y if bias is None else op.Sub(y, bias), 1.0 - carried))
        if moves[2]:
            columns = _columns(op, x, w, offset, **attributes)
            change = op.Reshape(at.moved(op, columns.image, columns.taps, columns.offsets), columns.by_tap)
            terms.append(op.Neg(_contract(op, _masked(op, change, mask, columns), columns, w, offset)))
        return sum_known(op, terms)
