"""Activations: elementwise functions of one input, and Softmax."""

from __future__ import annotations

from analyzer.ops.registry import Elementwise, Homogeneous, SymmetricJacobian, register


def step(op, x):
    """1 where x > 0, else 0, in the dtype of x."""
    return op.CastLike(op.Greater(x, 0.0), x)


@register
class Relu(Homogeneous):
    def torch(torch, x):
        return torch.relu(x)

    def tensorflow(tf, x):
        return tf.nn.relu(x)

    # The subgradient at 0 is 0, as in every framework.
    def vjp(op, g, y, x):
        return (op.Mul(g, step(op, y)),)


@register
class Sigmoid(Elementwise):
    def torch(torch, x):
        return torch.sigmoid(x)

    def tensorflow(tf, x):
        return tf.sigmoid(x)

    def vjp(op, g, y, x):
        return (op.Mul(g, op.Mul(y, op.Sub(1.0, y))),)


@register
class Softmax(SymmetricJacobian):
    def torch(torch, x, *, axis):
        return torch.softmax(x, axis)

    def tensorflow(tf, x, *, axis):
        return tf.nn.softmax(x, axis)

    def vjp(op, g, y, x, *, axis):
        weighted = op.Mul(g, y)
        return (op.Sub(weighted, op.Mul(y, op.ReduceSum(weighted, [axis]))),)
