"""Exponentials, logarithms and trigonometry: one formula each."""

from __future__ import annotations

from analyzer.ops.registry import Elementwise, register


@register
class Exp(Elementwise):
    def torch(torch, x):
        return torch.exp(x)

    def tensorflow(tf, x):
        return tf.exp(x)

    def vjp(op, g, y, x):
        return (lambda: op.Mul(g, y),)


@register
class Log(Elementwise):
    def torch(torch, x):
        return torch.log(x)

    def tensorflow(tf, x):
        return tf.math.log(x)

    def vjp(op, g, y, x):
        return (lambda: op.Div(g, x),)


@register
class Sin(Elementwise):
    def torch(torch, x):
        return torch.sin(x)

    def tensorflow(tf, x):
        return tf.sin(x)

    def vjp(op, g, y, x):
        return (lambda: op.Mul(g, op.Cos(x)),)


@register
class Cos(Elementwise):
    def torch(torch, x):
        return torch.cos(x)

    def tensorflow(tf, x):
        return tf.cos(x)

    def vjp(op, g, y, x):
        return (lambda: op.Neg(op.Mul(g, op.Sin(x))),)


@register
class Tan(Elementwise):
    def torch(torch, x):
        return torch.tan(x)

    def tensorflow(tf, x):
        return tf.tan(x)

    def vjp(op, g, y, x):
        return (lambda: op.Mul(g, op.Add(op.Mul(y, y), 1.0)),)


@register
class Asin(Elementwise):
    def torch(torch, x):
        return torch.asin(x)

    def tensorflow(tf, x):
        return tf.asin(x)

    def vjp(op, g, y, x):
        return (lambda: op.Div(g, op.Sqrt(op.Sub(1.0, op.Mul(x, x)))),)


@register
class Acos(Elementwise):
    def torch(torch, x):
        return torch.acos(x)

    def tensorflow(tf, x):
        return tf.acos(x)

    def vjp(op, g, y, x):
        return (lambda: op.Neg(op.Div(g, op.Sqrt(op.Sub(1.0, op.Mul(x, x))))),)


@register
class Atan(Elementwise):
    def torch(torch, x):
        return torch.atan(x)

    def tensorflow(tf, x):
        return tf.atan(x)

    def vjp(op, g, y, x):
        return (lambda: op.Div(g, op.Add(op.Mul(x, x), 1.0)),)


@register
class Sinh(Elementwise):
    def torch(torch, x):
        return torch.sinh(x)

    def tensorflow(tf, x):
        return tf.sinh(x)

    def vjp(op, g, y, x):
        return (lambda: op.Mul(g, op.Cosh(x)),)


@register
class Cosh(Elementwise):
    def torch(torch, x):
        return torch.cosh(x)

    def tensorflow(tf, x):
        return tf.cosh(x)

    def vjp(op, g, y, x):
        return (lambda: op.Mul(g, op.Sinh(x)),)


@register
class Asinh(Elementwise):
    def torch(torch, x):
        return torch.asinh(x)

    def tensorflow(tf, x):
        return tf.asinh(x)

    # √(x² + 1) by the larger of |x| and 1, whose square would overflow.
    def vjp(op, g, y, x):
        size = op.Abs(x)
        large, small = op.Max(size, 1.0), op.Min(size, 1.0)
        ratio = op.Div(small, large)
        return (lambda: op.Div(g, op.Mul(large, op.Sqrt(op.Add(op.Mul(ratio, ratio), 1.0)))),)


@register
class Acosh(Elementwise):
    def torch(torch, x):
        return torch.acosh(x)

    def tensorflow(tf, x):
        return tf.acosh(x)

    def vjp(op, g, y, x):
        return (lambda: op.Div(g, op.Mul(op.Sqrt(op.Sub(x, 1.0)), op.Sqrt(op.Add(x, 1.0)))),)


@register
class Atanh(Elementwise):
    def torch(torch, x):
        return torch.atanh(x)

    def tensorflow(tf, x):
        return tf.atanh(x)

    def vjp(op, g, y, x):
        return (lambda: op.Div(g, op.Sub(1.0, op.Mul(x, x))),)
