"""Reductions over axes, CumSum, and the positions of extrema."""

from __future__ import annotations

from typing import Any

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.registry import ExplicitRule, Homogeneous, Kink, PiecewiseConstant, register
from analyzer.ops.support import (
    axes_at_run,
    cast,
    constant_ints,
    expand_like,
    ints,
    normal_axes,
    rank_of,
    share_among_ties,
    size_of,
)

_AXES_INPUT = frozenset({1})
_LOWEST = -1e3


def reduced_axes(x: Any, axes: Any, noop: int) -> list[int]:
    """The axes that a form reduces over; no axes mean all of them, or none with `noop_with_empty_axes`."""
    named = [] if axes is None else ints(axes)
    if not named:
        return [] if noop else list(range(len(x.shape)))
    return normal_axes(named, len(x.shape))


def rule_axes(op: Builder, x: Tensor, axes: Tensor | None, noop: int) -> list[int] | Tensor:
    """The same for a rule: a tensor where the axes are known only when running."""
    named = [] if axes is None else constant_ints(axes)
    if named is None:
        assert axes is not None
        return axes_at_run(op, x, axes, noop)
    if not named:
        return [] if noop else list(range(rank_of(x)))
    return normal_axes(named, rank_of(x))


def kept(op: Builder, t: Tensor, axes: list[int] | Tensor, keepdims: int) -> Tensor:
    """A reduction's result or cotangent with the reduced axes of size 1."""
    return t if keepdims or not axes else op.Unsqueeze(t, axes)


@register
class ReduceSum(Homogeneous):
    inactive = _AXES_INPUT

    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return x.sum(over, keepdim=bool(keepdims), dtype=x.dtype) if over else x

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        return tf.reduce_sum(x, reduced_axes(x, axes, noop_with_empty_axes), keepdims=bool(keepdims))

    def vjp(op, g, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)
        return lambda: expand_like(op, kept(op, g, over, keepdims), x) if over else g, None


@register
class ReduceMean(Homogeneous):
    inactive = _AXES_INPUT

    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return x.mean(over, keepdim=bool(keepdims)) if over else x

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        return tf.reduce_mean(x, reduced_axes(x, axes, noop_with_empty_axes), keepdims=bool(keepdims))

    def vjp(op, g, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)

        def of_x():
            share = op.Div(g, size_of(op, x, over)) if over else g
            return expand_like(op, kept(op, share, over, keepdims), x) if over else share

        return of_x, None


class _Extremum(Homogeneous):
    # As in torch.amax and tf.reduce_max.
    kinks = (Kink("equal extrema", "shared evenly"),)
    inactive = _AXES_INPUT

    def vjp(op, g, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)

        def of_x():
            if not over:
                return g
            return share_among_ties(op, kept(op, g, over, keepdims), kept(op, y, over, keepdims), x, over)

        return of_x, None


@register
class ReduceMax(_Extremum):
    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return _torch_extremum(torch.amax, x, over, keepdims) if over else x

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        if x.dtype == tf.bool:
            return tf.reduce_any(x, over, keepdims=bool(keepdims))
        return tf.reduce_max(x, over, keepdims=bool(keepdims))


@register
class ReduceMin(_Extremum):
    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return _torch_extremum(torch.amin, x, over, keepdims) if over else x

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        if x.dtype == tf.bool:
            return tf.reduce_all(x, over, keepdims=bool(keepdims))
        return tf.reduce_min(x, over, keepdims=bool(keepdims))


def _torch_extremum(reduce, x, over, keepdims):
    if x.numel() == 0:
        # The extremum of nothing is the identity of the reduction.
        empty = float("-inf") if reduce.__name__ == "amax" else float("inf")
        empty = empty if x.dtype.is_floating_point else empty > 0
        shape = [1 if i in over else size for i, size in enumerate(x.shape)]
        full = x.new_full(shape, empty)
        return full if keepdims else full.squeeze(tuple(over))
    return reduce(x, over, keepdim=bool(keepdims))


@register
class ReduceL1(Homogeneous):
    kinks = (Kink("x = 0", "0"),)

    inactive = _AXES_INPUT

    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return x.abs().sum(over, keepdim=bool(keepdims)) if over else x.abs()

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return tf.reduce_sum(tf.abs(x), over, keepdims=bool(keepdims))

    def vjp(op, g, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)
        return lambda: op.Mul(kept(op, g, over, keepdims), op.Sign(x)), None


@register
class ReduceL2(Homogeneous):
    kinks = (Kink("all of x is 0", "0"),)

    inactive = _AXES_INPUT

    # The frameworks' own square root has no gradient at 0.
    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        total = (x * x).sum(over, keepdim=bool(keepdims)) if over else x * x
        return torch.where(total > 0, torch.sqrt(torch.where(total > 0, total, 1.0)), 0.0)

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        total = tf.reduce_sum(x * x, over, keepdims=bool(keepdims))
        safe = tf.where(total > 0, total, tf.ones_like(total))
        return tf.where(total > 0, tf.sqrt(safe), tf.zeros_like(total))

    def vjp(op, g, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)

        def of_x():
            length = op.Where(op.Greater(y, 0.0), y, 1.0)
            return op.Mul(kept(op, op.Div(g, length), over, keepdims), x)

        return of_x, None


@register
class ReduceSumSquare(Homogeneous):
    degree = 2
    inactive = _AXES_INPUT

    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return (x * x).sum(over, keepdim=bool(keepdims)) if over else x * x

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return tf.reduce_sum(x * x, over, keepdims=bool(keepdims))

    def vjp(op, g, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)
        return lambda: op.Mul(kept(op, op.Mul(g, 2.0), over, keepdims), x), None


@register
class ReduceProd(ExplicitRule):
    inactive = _AXES_INPUT

    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        for axis in reversed(over):
            x = x.prod(axis, keepdim=bool(keepdims), dtype=x.dtype)
        return x

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return tf.reduce_prod(x, over, keepdims=bool(keepdims))

    # Each factor's derivative is the product of the others, also where factors are 0.
    def vjp(op, g, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)

        def of_x():
            zero = op.Equal(x, 0.0)
            zeros = cast(op, zero, x)
            nonzero = op.Where(zero, 1.0, x)
            others = op.Div(op.ReduceProd(nonzero, over, keepdims=1, noop_with_empty_axes=1), nonzero)
            other_zeros = op.Sub(op.ReduceSum(zeros, over, keepdims=1, noop_with_empty_axes=1), zeros)
            slope = op.Where(op.Equal(other_zeros, 0.0), others, 0.0)
            return op.Mul(kept(op, g, over, keepdims), slope)

        return of_x if over else g, None

    # A product of n factors is homogeneous of degree n.
    def residual(op, active, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)
        if not over:
            return None
        count = size_of(op, x, over)
        factor = op.Sub(1.0, count) if isinstance(count, Tensor) else op.tensor(1.0 - count, y.dtype)
        return op.Mul(y, factor)


@register
class ReduceLogSumExp(ExplicitRule):
    inactive = _AXES_INPUT

    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return _torch_log_sum_exp(torch, x, over, bool(keepdims)) if over else x

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return tf.reduce_logsumexp(x, over, keepdims=bool(keepdims)) if over else tf.identity(x)

    def vjp(op, g, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)

        def of_x():
            _, exponentials, total = _shifted(op, x, over)
            return op.Mul(kept(op, g, over, keepdims), op.Div(exponentials, total))

        return of_x if over else g, None

    # J x = Σ p·x with the softmax p: r = Σ p·(y − x), and y is the maximum plus the logarithm of the total.
    def residual(op, active, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)
        if not over:
            return None
        below, exponentials, total = _shifted(op, x, over)
        drop = op.Mul(op.Div(exponentials, total), op.Sub(op.Log(total), below))
        return op.ReduceSum(drop, over, keepdims=keepdims, noop_with_empty_axes=1)


def _torch_log_sum_exp(torch, x, over, keepdim):
    # The derivative of torch's own is exp(x − y), of which rounding y leaves nothing where it is large.
    if x.numel() == 0:
        return torch.logsumexp(x, tuple(over), keepdim)
    highest = x.detach().amax(over, keepdim=True)
    highest = torch.where(torch.isfinite(highest), highest, 0.0)
    y = torch.log((x - highest).exp().sum(over, keepdim=True)) + highest
    return y if keepdim else y.squeeze(tuple(over))


def _shifted(op: Builder, x: Tensor, over: list[int] | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x less its maximum, where it is not so low that its exponential is 0; the exponentials, and their sum."""
    highest = op.ReduceMax(x, over, keepdims=1, noop_with_empty_axes=1)
    below = op.Max(op.Sub(x, highest), _LOWEST)
    exponentials = op.Exp(below)
    return below, exponentials, op.ReduceSum(exponentials, over, keepdims=1, noop_with_empty_axes=1)


@register
class ReduceLogSum(ExplicitRule):
    inactive = _AXES_INPUT

    def torch(torch, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return torch.log(x.sum(over, keepdim=bool(keepdims)) if over else x)

    def tensorflow(tf, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = reduced_axes(x, axes, noop_with_empty_axes)
        return tf.math.log(tf.reduce_sum(x, over, keepdims=bool(keepdims)))

    def vjp(op, g, y, x, axes=None, *, keepdims, noop_with_empty_axes):
        over = rule_axes(op, x, axes, noop_with_empty_axes)

        def of_x():
            slope = kept(op, op.Div(g, op.Exp(y)), over, keepdims)
            return expand_like(op, slope, x) if over else slope

        return of_x, None

    # log(a·s) = log a + log s, so that J x = 1.
    def residual(op, active, y, x, axes=None, **attributes):
        return op.Sub(y, 1.0)


@register
class CumSum(Homogeneous):
    inactive = _AXES_INPUT

    def torch(torch, x, axis, *, exclusive, reverse):
        along = ints(axis)[0]
        x = x.flip(along) if reverse else x
        total = x.cumsum(along, dtype=x.dtype)
        total = total - x if exclusive else total
        return total.flip(along) if reverse else total

    def tensorflow(tf, x, axis, *, exclusive, reverse):
        return tf.cumsum(x, ints(axis)[0], bool(exclusive), bool(reverse))

    def vjp(op, g, y, x, axis, *, exclusive, reverse):
        return lambda: op.CumSum(g, axis, exclusive=exclusive, reverse=1 - reverse), None


@register
class ArgMax(PiecewiseConstant):
    # The first of equal maxima, or the last.
    def torch(torch, x, *, axis, keepdims, select_last_index):
        if select_last_index:
            return x.shape[axis] - 1 - x.flip(axis).argmax(axis, keepdim=bool(keepdims))
        return x.argmax(axis, keepdim=bool(keepdims))

    def tensorflow(tf, x, *, axis, keepdims, select_last_index):
        return _tf_position(tf, x, tf.argmax, axis, keepdims, select_last_index)


@register
class ArgMin(PiecewiseConstant):
    def torch(torch, x, *, axis, keepdims, select_last_index):
        if select_last_index:
            return x.shape[axis] - 1 - x.flip(axis).argmin(axis, keepdim=bool(keepdims))
        return x.argmin(axis, keepdim=bool(keepdims))

    def tensorflow(tf, x, *, axis, keepdims, select_last_index):
        return _tf_position(tf, x, tf.argmin, axis, keepdims, select_last_index)


def _tf_position(tf, x, find, axis, keepdims, last):
    axis %= len(x.shape)
    found = x.shape[axis] - 1 - find(tf.reverse(x, [axis]), axis) if last else find(x, axis)
    return tf.expand_dims(found, axis) if keepdims else found
