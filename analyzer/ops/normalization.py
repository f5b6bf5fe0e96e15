"""Normalizations: by stored statistics (BatchNormalization), by neighbours (LRN), or by their own moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import INFERENCE
from analyzer.graph.graph import Tensor
from analyzer.ops.registry import Affine, ExplicitRule, Homogeneous, Kink, register
from analyzer.ops.support import (
    cast,
    expand_like,
    ones,
    per_channel,
    rank_of,
    reshape_like,
    size_of,
    sum_known,
)


def _channels(v: Any, x: Any, reshape: Any) -> Any:
    return reshape(v, [-1, *ones(len(x.shape) - 2)]) if len(x.shape) > 2 else v


@register
class BatchNormalization(Affine):
    def torch(torch, x, scale, b, mean, var, *, epsilon, momentum, training_mode):
        return _batch_norm(torch, torch.reshape, x, scale, b, mean, var, epsilon, training_mode)

    def tensorflow(tf, x, scale, b, mean, var, *, epsilon, momentum, training_mode):
        return _batch_norm(tf, tf.reshape, x, scale, b, mean, var, epsilon, training_mode)

    def vjp(op, g, y, x, scale, b, mean, var, *, epsilon, momentum, training_mode):
        if training_mode:
            raise UnsupportedOp(f"BatchNormalization {INFERENCE}")
        rank = rank_of(x)
        others = [0, *range(2, rank)]
        deviation = op.Sqrt(op.Add(var, epsilon))
        slope = op.Div(scale, deviation)

        def normal():
            centred = op.Sub(x, per_channel(op, mean, rank))
            return op.Div(centred, per_channel(op, deviation, rank))

        def of_scale():
            return op.ReduceSum(op.Mul(g, normal()), others, keepdims=0)

        def of_var():
            # ∂σ⁻¹/∂var = −σ⁻³ / 2
            factor = op.Mul(op.Div(slope, op.Mul(deviation, deviation)), -0.5)
            centred = op.Sub(x, per_channel(op, mean, rank))
            return op.Mul(op.ReduceSum(op.Mul(g, centred), others, keepdims=0), factor)

        return (
            lambda: op.Mul(g, per_channel(op, slope, rank)),
            of_scale,
            lambda: op.ReduceSum(g, others, keepdims=0),
            lambda: op.Neg(op.Mul(op.ReduceSum(g, others, keepdims=0), slope)),
            of_var,
        )

    def residual(op, active, y, x, scale, b, mean, var, *, epsilon, momentum, training_mode):
        rank = rank_of(x)
        alone = list(active) == [True, False, False, False, False]
        if alone and all(t.constant is not None for t in (scale, b, mean, var)):
            # As a number: what multiplies gradients by it then knows that it is one for each channel.
            shift = b.constant - mean.constant * scale.constant / np.sqrt(var.constant + epsilon)
            return per_channel(op, op.tensor(shift.astype(b.dtype)), rank)
        deviation = op.Sqrt(op.Add(var, epsilon))
        slope = op.Div(scale, deviation)
        if alone:
            return per_channel(op, op.Sub(b, op.Mul(mean, slope)), rank)
        wide_slope = per_channel(op, slope, rank)
        product = op.Mul(op.Sub(x, per_channel(op, mean, rank)), wide_slope)
        derivatives = (
            lambda: op.Mul(x, wide_slope),
            lambda: product,
            lambda: per_channel(op, b, rank),
            lambda: op.Neg(per_channel(op, op.Mul(mean, slope), rank)),
            lambda: op.Mul(product, per_channel(op, op.Div(op.Mul(var, -0.5), op.Add(var, epsilon)), rank)),
        )
        r = y
        for moves, derivative in zip(active, derivatives, strict=True):
            r = op.Sub(r, derivative()) if moves else r
        return r


def _batch_norm(framework, reshape, x, scale, b, mean, var, epsilon, training_mode):
    if training_mode:
        raise ValueError(f"BatchNormalization {INFERENCE}")
    slope = scale / framework.sqrt(var + epsilon)
    shift = b - mean * slope
    return x * _channels(slope, x, reshape) + _channels(shift, x, reshape)


@register
class LRN(ExplicitRule):
    def torch(torch, x, *, alpha, beta, bias, size):
        before, after = (size - 1) // 2, size // 2
        square = torch.nn.functional.pad((x * x).flatten(2), [0, 0, before, after])
        total = sum(square[:, k : k + x.shape[1]] for k in range(size))
        return x / (bias + alpha / size * total.reshape(x.shape)) ** beta

    def tensorflow(tf, x, *, alpha, beta, bias, size):
        before, after = (size - 1) // 2, size // 2
        square = tf.pad(x * x, [(0, 0), (before, after)] + [(0, 0)] * (len(x.shape) - 2))
        total = tf.add_n([square[:, k : k + x.shape[1]] for k in range(size)])
        return x / (bias + alpha / size * total) ** beta

    # y = x·d⁻ᵝ with d = bias + α/size·Σ x²: the channels that see x are the window reversed.
    def vjp(op, g, y, x, *, alpha, beta, bias, size):
        def of_x():
            d = _lrn_base(op, x, alpha, bias, size)
            scaled = op.Mul(g, op.Pow(d, -beta))
            seen = _channel_sum(op, op.Div(op.Mul(scaled, x), d), x, size, reverse=True)
            return op.Sub(scaled, op.Mul(op.Mul(x, seen), 2 * alpha * beta / size))

        return (of_x,)

    # J x = y − 2β·y·(d − bias)/d
    def residual(op, active, y, x, *, alpha, beta, bias, size):
        d = _lrn_base(op, x, alpha, bias, size)
        return op.Mul(op.Mul(y, 2 * beta), op.Div(op.Sub(d, bias), d))


def _lrn_base(op: Builder, x: Tensor, alpha: float, bias: float, size: int) -> Tensor:
    total = _channel_sum(op, op.Mul(x, x), x, size, reverse=False)
    return op.Add(op.Mul(total, alpha / size), bias)


def _channel_sum(op: Builder, t: Tensor, x: Tensor, size: int, reverse: bool) -> Tensor:
    """Sums over windows of `size` channels; `reverse` sums over the windows that a channel belongs to."""
    channels = x.shape[1] if x.shape is not None else None
    if isinstance(channels, int) and rank_of(x) > 2:
        # A convolution of one position by a band of ones: several times faster than a pool over channels.
        offset = np.arange(channels)[None] - np.arange(channels)[:, None]
        band = (offset >= -((size - 1) // 2)) & (offset <= size // 2)
        kernel = (band.T if reverse else band).astype(x.dtype)
        return op.Conv(t, kernel.reshape(channels, channels, *ones(rank_of(x) - 2)))
    pads = [(size - 1) // 2, 0, size // 2, 0]
    pads = pads[2:] + pads[:2] if reverse else pads
    plane = op.Unsqueeze(op.Reshape(t, [0, 0, -1]), [1])
    average = op.AveragePool(plane, kernel_shape=[size, 1], pads=pads, count_include_pad=1)
    return op.Mul(reshape_like(op, average, x), float(size))


def _moments(op: Builder, x: Tensor, axes: Sequence[int], epsilon: float) -> tuple[Tensor, Tensor]:
    """x normalised over `axes`, and 1/√(variance + ε)."""
    centred = op.Sub(x, op.ReduceMean(x, list(axes), keepdims=1))
    variance = op.ReduceMean(op.Mul(centred, centred), list(axes), keepdims=1)
    inverse = op.Reciprocal(op.Sqrt(op.Add(variance, epsilon)))
    return op.Mul(centred, inverse), inverse


def _normalized_vjp(op: Builder, g: Tensor, normal: Tensor, inverse: Tensor, axes: Sequence[int]) -> Tensor:
    """The VJP of x ↦ x̂: (g − mean g − x̂·mean(g·x̂)) / σ."""
    mean = op.ReduceMean(g, list(axes), keepdims=1)
    along = op.ReduceMean(op.Mul(g, normal), list(axes), keepdims=1)
    return op.Mul(op.Sub(op.Sub(g, mean), op.Mul(normal, along)), inverse)


def _normalized_residual(
    op: Builder,
    active: Sequence[bool],
    y: Tensor,
    moments: tuple[Tensor, Tensor],
    epsilon: float,
    scale: Tensor,
    bias: Tensor | None,
) -> Tensor | None:
    """r of y = scale·x̂ + bias. J x = scale·x̂·ε/σ², J scale = scale·x̂."""
    normal, inverse = moments
    product = op.Mul(normal, scale)
    terms: list[Tensor | None] = [] if bias is None or active[2:] == [True] else [bias]
    if active[0]:
        share = op.Mul(op.Mul(inverse, inverse), epsilon)
        terms.append(op.Neg(op.Mul(product, share)))
    if not active[1]:
        terms.append(product)
    return sum_known(op, terms)


@register
class LayerNormalization(ExplicitRule):
    broadcasts = True
    several_outputs = True

    def torch(torch, x, scale, b=None, *, axis, epsilon, stash_type):
        over = list(range(axis % x.dim(), x.dim()))
        mean = x.mean(over, keepdim=True)
        inverse = torch.rsqrt(((x - mean) ** 2).mean(over, keepdim=True) + epsilon)
        y = (x - mean) * inverse * scale
        return y if b is None else y + b, mean, inverse

    def tensorflow(tf, x, scale, b=None, *, axis, epsilon, stash_type):
        over = list(range(axis % len(x.shape), len(x.shape)))
        mean = tf.reduce_mean(x, over, keepdims=True)
        inverse = tf.math.rsqrt(tf.reduce_mean((x - mean) ** 2, over, keepdims=True) + epsilon)
        y = (x - mean) * inverse * scale
        return y if b is None else y + b, mean, inverse

    def vjp(op, g, y, x, scale, b=None, *, axis, epsilon, stash_type):
        over = list(range(axis % rank_of(x), rank_of(x)))
        normal, inverse = _moments(op, x, over, epsilon)
        # The statistics have a dtype of their own, that of stash_type.
        of_y = g[0]
        of_mean, of_inverse = (t and cast(op, t, x) for t in (*g[1:], None, None)[:2])

        # With n elements ∂mean/∂x = 1/n, and ∂σ⁻¹/∂x = −σ⁻²·x̂/n.
        def of_x():
            count = size_of(op, x, over)
            terms = []
            if of_y is not None:
                terms.append(_normalized_vjp(op, op.Mul(of_y, scale), normal, inverse, over))
            if of_mean is not None:
                terms.append(expand_like(op, op.Div(of_mean, count), x))
            if of_inverse is not None:
                slope = op.Div(op.Mul(of_inverse, op.Mul(inverse, inverse)), count)
                terms.append(op.Neg(op.Mul(slope, normal)))
            return sum_known(op, terms)

        return of_x, lambda: of_y and op.Mul(of_y, normal), of_y

    def residual(op, active, y, x, scale, b=None, *, axis, epsilon, stash_type):
        over = list(range(axis % rank_of(x), rank_of(x)))
        moments = _moments(op, x, over, epsilon)
        r = _normalized_residual(op, list(active), y[0], moments, epsilon, scale, b)
        if not active[0]:
            return (r,)
        # The mean is linear; for σ⁻¹ with σ² = var + ε, J x = −σ⁻³·var.
        inverse = moments[1]
        return r, None, op.Mul(inverse, op.Sub(2.0, op.Mul(op.Mul(inverse, inverse), epsilon)))


@register
class RMSNormalization(ExplicitRule):
    broadcasts = True

    def torch(torch, x, scale, *, axis, epsilon, stash_type):
        over = list(range(axis % x.dim(), x.dim()))
        return x * torch.rsqrt((x * x).mean(over, keepdim=True) + epsilon) * scale

    def tensorflow(tf, x, scale, *, axis, epsilon, stash_type):
        over = list(range(axis % len(x.shape), len(x.shape)))
        return x * tf.math.rsqrt(tf.reduce_mean(x * x, over, keepdims=True) + epsilon) * scale

    def vjp(op, g, y, x, scale, *, axis, epsilon, stash_type):
        normal, inverse, over = _root_mean_square(op, x, axis, epsilon)

        def of_x():
            scaled = op.Mul(g, scale)
            along = op.ReduceMean(op.Mul(scaled, normal), over, keepdims=1)
            return op.Mul(op.Sub(scaled, op.Mul(normal, along)), inverse)

        return of_x, lambda: op.Mul(g, normal)

    # J x = scale·x̂·ε/σ² with σ² = mean x² + ε
    def residual(op, active, y, x, scale, *, axis, epsilon, stash_type):
        normal, inverse, _ = _root_mean_square(op, x, axis, epsilon)
        return _normalized_residual(op, list(active), y, (normal, inverse), epsilon, scale, None)


def _root_mean_square(op, x, axis, epsilon):
    over = list(range(axis % rank_of(x), rank_of(x)))
    inverse = op.Reciprocal(op.Sqrt(op.Add(op.ReduceMean(op.Mul(x, x), over, keepdims=1), epsilon)))
    return op.Mul(x, inverse), inverse, over


@register
class InstanceNormalization(ExplicitRule):
    def torch(torch, x, scale, b, *, epsilon):
        over = list(range(2, x.dim()))
        mean = x.mean(over, keepdim=True)
        inverse = torch.rsqrt(((x - mean) ** 2).mean(over, keepdim=True) + epsilon)
        return (x - mean) * inverse * _channels(scale, x, torch.reshape) + _channels(b, x, torch.reshape)

    def tensorflow(tf, x, scale, b, *, epsilon):
        over = list(range(2, len(x.shape)))
        mean = tf.reduce_mean(x, over, keepdims=True)
        inverse = tf.math.rsqrt(tf.reduce_mean((x - mean) ** 2, over, keepdims=True) + epsilon)
        return (x - mean) * inverse * _channels(scale, x, tf.reshape) + _channels(b, x, tf.reshape)

    def vjp(op, g, y, x, scale, b, *, epsilon):
        rank = rank_of(x)
        over, others = list(range(2, rank)), [0, *range(2, rank)]
        normal, inverse = _moments(op, x, over, epsilon)
        return (
            lambda: _normalized_vjp(op, op.Mul(g, per_channel(op, scale, rank)), normal, inverse, over),
            lambda: op.ReduceSum(op.Mul(g, normal), others, keepdims=0),
            lambda: op.ReduceSum(g, others, keepdims=0),
        )

    def residual(op, active, y, x, scale, b, *, epsilon):
        rank = rank_of(x)
        moments = _moments(op, x, list(range(2, rank)), epsilon)
        wide_scale, wide_bias = per_channel(op, scale, rank), per_channel(op, b, rank)
        return _normalized_residual(op, list(active), y, moments, epsilon, wide_scale, wide_bias)


@register
class GroupNormalization(ExplicitRule):
    def torch(torch, x, scale, b, *, epsilon, num_groups, stash_type):
        # torch's own group_norm refuses groups of one element.
        split = x.reshape(x.shape[0], num_groups, -1)
        mean = split.mean(-1, keepdim=True)
        inverse = torch.rsqrt(((split - mean) ** 2).mean(-1, keepdim=True) + epsilon)
        y = ((split - mean) * inverse).reshape(x.shape)
        return y * _channels(scale, x, torch.reshape) + _channels(b, x, torch.reshape)

    def tensorflow(tf, x, scale, b, *, epsilon, num_groups, stash_type):
        split = tf.reshape(x, [x.shape[0], num_groups, -1])
        mean = tf.reduce_mean(split, -1, keepdims=True)
        inverse = tf.math.rsqrt(tf.reduce_mean((split - mean) ** 2, -1, keepdims=True) + epsilon)
        y = tf.reshape((split - mean) * inverse, x.shape)
        return y * _channels(scale, x, tf.reshape) + _channels(b, x, tf.reshape)

    def vjp(op, g, y, x, scale, b, *, epsilon, num_groups, stash_type):
        rank = rank_of(x)
        others = [0, *range(2, rank)]
        normal, inverse = _group_moments(op, x, num_groups, epsilon)

        def of_x():
            scaled = op.Reshape(op.Mul(g, per_channel(op, scale, rank)), [0, num_groups, -1])
            return reshape_like(op, _normalized_vjp(op, scaled, normal, inverse, [2]), x)

        return (
            of_x,
            lambda: op.ReduceSum(op.Mul(g, reshape_like(op, normal, x)), others, keepdims=0),
            lambda: op.ReduceSum(g, others, keepdims=0),
        )

    def residual(op, active, y, x, scale, b, *, epsilon, num_groups, stash_type):
        rank = rank_of(x)
        normal, inverse = _group_moments(op, x, num_groups, epsilon)
        wide = op.Add(op.Mul(normal, 0.0), inverse)
        moments = reshape_like(op, normal, x), reshape_like(op, wide, x)
        wide_scale, wide_bias = per_channel(op, scale, rank), per_channel(op, b, rank)
        return _normalized_residual(op, list(active), y, moments, epsilon, wide_scale, wide_bias)


def _group_moments(op, x, groups, epsilon):
    return _moments(op, op.Reshape(x, [0, groups, -1]), [2], epsilon)


@register
class LpNormalization(Homogeneous):
    kinks = (
        Kink("all of x is 0", "1: the norm is taken as the constant 1"),
        Kink("x = 0, p = 1", "of the norm 0"),
    )

    degree = 0

    def torch(torch, x, *, axis, p):
        total = (x.abs() if p == 1 else x * x).sum(axis, keepdim=True)
        safe = torch.where(total > 0, total, 1.0)
        return x / (safe if p == 1 else torch.sqrt(safe))

    def tensorflow(tf, x, *, axis, p):
        total = tf.reduce_sum(tf.abs(x) if p == 1 else x * x, axis, keepdims=True)
        safe = tf.where(total > 0, total, tf.ones_like(total))
        return x / (safe if p == 1 else tf.sqrt(safe))

    def vjp(op, g, y, x, *, axis, p):
        def of_x():
            reduce = op.ReduceL1 if p == 1 else op.ReduceL2
            norm = reduce(x, [axis], keepdims=1)
            safe = op.Where(op.Greater(norm, 0.0), norm, 1.0)
            along = op.ReduceSum(op.Mul(g, y), [axis], keepdims=1)
            return op.Div(op.Sub(g, op.Mul(along, op.Sign(x) if p == 1 else y)), safe)

        return (of_x,)
