"""Bitwise ops of integers: no derivative passes through them."""

from __future__ import annotations

from analyzer.ops.registry import PiecewiseConstant, register


@register
class BitwiseAnd(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.bitwise_and(a, b)

    def tensorflow(tf, a, b):
        return tf.bitwise.bitwise_and(a, b)


@register
class BitwiseOr(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.bitwise_or(a, b)

    def tensorflow(tf, a, b):
        return tf.bitwise.bitwise_or(a, b)


@register
class BitwiseXor(PiecewiseConstant):
    def torch(torch, a, b):
        return torch.bitwise_xor(a, b)

    def tensorflow(tf, a, b):
        return tf.bitwise.bitwise_xor(a, b)


@register
class BitwiseNot(PiecewiseConstant):
    def torch(torch, x):
        return torch.bitwise_not(x)

    def tensorflow(tf, x):
        return tf.bitwise.invert(x)


@register
class BitShift(PiecewiseConstant):
    def torch(torch, x, y, *, direction):
        # torch shifts no unsigned integers wider than a byte: shift as signed ones of the next width.
        wide, count = x.to(torch.int64), y.to(torch.int64)
        return (wide << count if direction == "LEFT" else wide >> count).to(x.dtype)

    def tensorflow(tf, x, y, *, direction):
        shift = tf.bitwise.left_shift if direction == "LEFT" else tf.bitwise.right_shift
        return shift(x, y)
