"""Comparisons, logic and rounding: piecewise constant, so that what depends on them is a constant."""

from __future__ import annotations

from analyzer.ops.registry import Elementwise, PiecewiseConstant, register


@register
class Sign(PiecewiseConstant):
    def torch(torch, x):
        return torch.sign(x)

    def tensorflow(tf, x):
        return tf.sign(x)


@register
class Floor(PiecewiseConstant):
    def torch(torch, x):
        return torch.floor(x)

    def tensorflow(tf, x):
        return tf.floor(x)


@register
class Ceil(PiecewiseConstant):
    def torch(torch, x):
        return torch.ceil(x)

    def tensorflow(tf, x):
        return tf.math.ceil(x)


class StraightThroughRound(Elementwise):
    """Rounds, and is differentiated as if it did not. Source: Bengio, Léonard & Courville 2013."""

    # A map rescales every bias to its own largest value: noise of half a quantum would count like a layer.
    placed = False

    def torch(torch, x):
        return torch.round(x).detach() + (x - x.detach())

    def tensorflow(tf, x):
        return tf.stop_gradient(tf.round(x)) + (x - tf.stop_gradient(x))

    def vjp(op, g, y, x):
        return (g,)


@register
class Round(PiecewiseConstant):
    straight_through = StraightThroughRound

    # Halves go to the even neighbour, in both frameworks.
    def torch(torch, x):
        return torch.round(x)

    def tensorflow(tf, x):
        return tf.round(x)


@register
class Equal(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.eq(a, b)

    def tensorflow(tf, a, b):
        return tf.equal(a, b)


@register
class Greater(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.gt(a, b)

    def tensorflow(tf, a, b):
        return tf.greater(a, b)


@register
class GreaterOrEqual(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.ge(a, b)

    def tensorflow(tf, a, b):
        return tf.greater_equal(a, b)


@register
class Less(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.lt(a, b)

    def tensorflow(tf, a, b):
        return tf.less(a, b)


@register
class LessOrEqual(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.le(a, b)

    def tensorflow(tf, a, b):
        return tf.less_equal(a, b)


@register
class And(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.logical_and(a, b)

    def tensorflow(tf, a, b):
        return tf.logical_and(a, b)


@register
class Or(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.logical_or(a, b)

    def tensorflow(tf, a, b):
        return tf.logical_or(a, b)


@register
class Xor(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.logical_xor(a, b)

    def tensorflow(tf, a, b):
        return tf.math.logical_xor(a, b)


@register
class Not(PiecewiseConstant):
    def torch(torch, x):
        return torch.logical_not(x)

    def tensorflow(tf, x):
        return tf.logical_not(x)


@register
class IsNaN(PiecewiseConstant):
    def torch(torch, x):
        return torch.isnan(x)

    def tensorflow(tf, x):
        return tf.math.is_nan(x)


@register
class IsInf(PiecewiseConstant):
    def torch(torch, x, *, detect_negative, detect_positive):
        signs = ([torch.isposinf(x)] if detect_positive else []) + (
            [torch.isneginf(x)] if detect_negative else []
        )
        return sum(signs, torch.zeros_like(x, dtype=torch.bool))

    def tensorflow(tf, x, *, detect_negative, detect_positive):
        found = tf.math.is_inf(x)
        admitted = (bool(detect_positive) & (x > 0)) | (bool(detect_negative) & (x < 0))
        return tf.logical_and(found, admitted)


@register
class Hardmax(PiecewiseConstant):
    # 1 at the first maximum, else 0.
    def torch(torch, x, *, axis):
        return torch.zeros_like(x).scatter(axis, x.argmax(axis, keepdim=True), 1.0)

    def tensorflow(tf, x, *, axis):
        return tf.one_hot(tf.argmax(x, axis), x.shape[axis], axis=axis, dtype=x.dtype)
