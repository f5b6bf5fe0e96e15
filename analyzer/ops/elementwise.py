"""Arithmetic of one or more operands, with broadcasting."""

from __future__ import annotations

from analyzer.ops.registry import Affine, Multilinear, register


@register
class Add(Affine):
    broadcasts = True

    def torch(torch, a, b):
        return torch.add(a, b)

    def tensorflow(tf, a, b):
        return tf.add(a, b)

    def vjp(op, g, y, a, b):
        return g, g

    def residual(op, active, y, a, b):
        return None if all(active) else (b if active[0] else a)


@register
class Mul(Multilinear):
    broadcasts = True

    def torch(torch, a, b):
        return torch.mul(a, b)

    def tensorflow(tf, a, b):
        return tf.multiply(a, b)

    def vjp(op, g, y, a, b):
        return lambda: op.Mul(g, b), lambda: op.Mul(g, a)
