"""The softmaxes: over one axis, and unchanged where a number is added to a whole row.

Rows may hold −∞ or the lowest number that there is, as a mask puts them: what is so far below its row's maximum has the
probability 0.
"""

from __future__ import annotations

from analyzer.graph.graph import Tensor
from analyzer.ops.registry import ExplicitRule, SymmetricJacobian, register
from analyzer.ops.support import RowProduct

_LOWEST = -1e3
"""A logarithm of a probability that is 0 in every precision; times it −∞ would be NaN."""


def _is_wider(weights: Tensor, product: RowProduct, axis: int) -> bool:
    """Whether a product is one of these weights along their last axis, and shorter there than they are."""
    long, short = (t.shape[-1] if t.shape else None for t in (weights, product.y))
    last = weights.shape is not None and axis in (-1, len(weights.shape) - 1)
    return (
        last
        and weights.name == product.a.name
        and isinstance(long, int)
        and isinstance(short, int)
        and short < long
    )


@register
class Softmax(SymmetricJacobian):
    def torch(torch, x, *, axis):
        return torch.softmax(x, axis)

    def tensorflow(tf, x, *, axis):
        return tf.nn.softmax(x, axis)

    def vjp(op, g, y, x, *, axis):
        known = op.notes.get(g.name)
        if isinstance(known, RowProduct) and _is_wider(y, known, axis):
            # Attention's weights: their rows are longer than what they weigh.
            return (lambda: op.Mul(y, op.Sub(g, op.ReduceSum(op.Mul(known.g, known.y), [-1]))),)
        weighted = op.Mul(g, y)
        return (lambda: op.Sub(weighted, op.Mul(y, op.ReduceSum(weighted, [axis]))),)

    # A shift of a whole row changes nothing, J 1 = 0, so that J x is taken of x less its row's maximum.
    def residual(op, active, y, x, *, axis):
        below = op.Max(op.Sub(x, op.ReduceMax(x, [axis])), _LOWEST)
        (product,) = Softmax.vjp(op, below, y, x, axis=axis)
        return op.Sub(y, product())


@register
class LogSoftmax(ExplicitRule):
    def torch(torch, x, *, axis):
        return torch.log_softmax(x, axis)

    def tensorflow(tf, x, *, axis):
        return tf.nn.log_softmax(x, axis)

    def vjp(op, g, y, x, *, axis):
        return (lambda: op.Sub(g, op.Mul(op.Exp(y), op.ReduceSum(g, [axis]))),)

    # J x = x − Σ p·x with p = exp y, and y − x is one number for the whole row: r = Σ p·(x + y − x) = Σ p·y.
    def residual(op, active, y, x, *, axis):
        return op.ReduceSum(op.Mul(op.Exp(y), op.Max(y, _LOWEST)), [axis])
