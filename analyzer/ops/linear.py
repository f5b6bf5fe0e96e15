"""Matrix products, Gemm and MatMul, and the determinant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Tensor
from analyzer.ops.registry import Affine, ExplicitRule, Multilinear, register
from analyzer.ops.support import RowProduct, is_zero, rank_of, reshape_like, sum_grown, sum_known


def bilinear_residual(
    op: Builder, factors: Sequence[bool], y: Tensor, bias: Tensor | None, bias_active: bool
) -> Tensor | None:
    """The residual of y = a·b + bias: `factors` says which of a and b are active."""
    count = sum(factors)
    constant = None if bias is None or bias_active or is_zero(bias) else bias
    if count == 1:
        return constant
    # r = y − count·(y − bias) − [bias active]·bias
    product = y if bias is None or is_zero(bias) else op.Sub(y, bias)
    if count == 0:
        return product
    return sum_known(op, [op.Neg(product), constant])


@register
class Gemm(Affine):
    def torch(torch, a, b, c=None, *, alpha, beta, transA, transB):
        y = (a.T if transA else a) @ (b.T if transB else b)
        y = y if alpha == 1 else alpha * y
        return y if c is None else y + (c if beta == 1 else beta * c)

    def tensorflow(tf, a, b, c=None, *, alpha, beta, transA, transB):
        y = tf.matmul(a, b, transpose_a=bool(transA), transpose_b=bool(transB))
        y = y if alpha == 1 else alpha * y
        return y if c is None else y + (c if beta == 1 else beta * c)

    def vjp(op, g, y, a, b, c=None, *, alpha, beta, transA, transB):
        def of_a():
            if transA:
                return op.Gemm(b, g, alpha=alpha, transA=transB, transB=1)
            return op.Gemm(g, b, alpha=alpha, transB=1 - transB)

        def of_b():
            if transB:
                return op.Gemm(g, a, alpha=alpha, transA=1, transB=transA)
            return op.Gemm(a, g, alpha=alpha, transA=1 - transA)

        def of_c():
            # c alone broadcasts, so the sum over it is taken here.
            axes = _broadcast_axes(c, y)
            summed = op.ReduceSum(g, axes, keepdims=1) if axes else g
            if rank_of(c) < 2:
                summed = op.Reshape(summed, [-1] if rank_of(c) else [1])
                summed = summed if rank_of(c) else op.Squeeze(summed, [0])
            return summed if beta == 1 else op.Mul(summed, beta)

        return of_a, of_b, of_c

    def residual(op, active, y, a, b, c=None, *, beta, **attributes):
        bias = c if c is None or beta == 1 or is_zero(c) else op.Mul(c, beta)
        return bilinear_residual(op, active[:2], y, bias, len(active) > 2 and active[2])


def _broadcast_axes(c: Tensor, y: Tensor) -> list[int]:
    shape = (1,) * (2 - rank_of(c)) + (c.shape or ())
    return [axis for axis in (0, 1) if shape[axis] == 1 and (y.shape is None or y.shape[axis] != 1)]


@register
class MatMul(Multilinear):
    def torch(torch, a, b):
        return torch.matmul(a, b)

    def tensorflow(tf, a, b):
        wide_a = a[tf.newaxis, :] if len(a.shape) == 1 else a
        wide_b = b[:, tf.newaxis] if len(b.shape) == 1 else b
        y = _tf_matmul(tf, wide_a, wide_b)
        y = tf.squeeze(y, -1) if len(b.shape) == 1 else y
        return tf.squeeze(y, -1 if len(b.shape) == 1 else -2) if len(a.shape) == 1 else y

    def vjp(op, g, y, a, b):
        # A vector is a matrix of one row or column, in the operand and in the cotangent.
        row, column = rank_of(a) == 1, rank_of(b) == 1
        wide = op.Unsqueeze(g, [-1]) if column else g
        wide = op.Unsqueeze(wide, [-2]) if row else wide

        def of_a():
            matrix = op.Unsqueeze(b, [0]) if column else _transposed(op, b)
            product = op.MatMul(wide, matrix)
            whole = _sum_batch(op, op.Squeeze(product, [-2]) if row else product, a, b)
            return op.note(whole, RowProduct(a, g, y)) if whole is product and not column else whole

        def of_b():
            matrix = op.Unsqueeze(a, [1]) if row else _transposed(op, a)
            product = op.MatMul(matrix, wide)
            return _sum_batch(op, op.Squeeze(product, [-1]) if column else product, b, a)

        return of_a, of_b


def _tf_matmul(tf, a, b):
    """A product of stacks of matrices, their batch axes made equal first.

    TensorFlow's oneDNN kernel gives wrong numbers for some batches that it broadcasts itself.
    """
    if len(b.shape) == 2 < len(a.shape):
        return tf.reshape(tf.matmul(tf.reshape(a, [-1, a.shape[-1]]), b), [*a.shape[:-1], b.shape[-1]])
    if a.shape[:-2] == b.shape[:-2]:
        return tf.matmul(a, b)
    batch = tf.broadcast_static_shape(a.shape[:-2], b.shape[:-2])
    stacks = (tf.broadcast_to(m, [*batch, *m.shape[-2:]]) for m in (a, b))
    return tf.matmul(*stacks)


def _transposed(op: Builder, matrix: Tensor) -> Tensor:
    rank = rank_of(matrix)
    return op.Transpose(matrix, perm=[*range(rank - 2), rank - 1, rank - 2])


def _sum_batch(op: Builder, g: Tensor, u: Tensor, other: Tensor) -> Tensor:
    """Sum a product over the batch axes along which u was broadcast against the other operand.

    Only these broadcast: the sweep, which compares whole shapes, cannot know.
    """
    small, large = ((t.shape or ())[:-2] for t in (u, other))
    large = (1,) * (len(small) - len(large)) + large
    lead = len(large) - len(small)
    # An axis of size 1 in the other operand does not grow, whatever its size is here; nor do the matrices' axes.
    own = tuple(1 if its == 1 else mine for mine, its in zip(small, large[lead:], strict=True))
    matrix = (1,) * len((u.shape or ())[-2:])
    return sum_grown(op, g, replace(g, shape=(*large, *matrix)), replace(u, shape=(*own, *matrix)))


# The minors of an n by n matrix have n⁴ elements.
_LARGEST_DETERMINANT = 32


@register
class Det(ExplicitRule):
    def torch(torch, x):
        return torch.linalg.det(x)

    def tensorflow(tf, x):
        return tf.linalg.det(x)

    # The derivative by an element is its cofactor: no division, so that singular matrices have theirs too.
    def vjp(op, g, y, x):
        n = _order(x)
        if n == 1:
            return (lambda: reshape_like(op, g, x),)

        def of_x():
            others = np.asarray([[j for j in range(n) if j != i] for i in range(n)])
            minors = others[:, None, :, None] * n + others[None, :, None, :]
            signs = (1 - 2 * (np.indices((n, n)).sum(0) % 2)).astype(x.dtype)
            cofactors = op.Mul(op.Det(op.Gather(op.Reshape(x, [-1, n * n]), minors, axis=1)), signs)
            return reshape_like(op, op.Mul(cofactors, op.Reshape(g, [-1, 1, 1])), x)

        return (of_x,)

    # Homogeneous of degree n.
    def residual(op, active, y, x):
        n = _order(x)
        return None if n == 1 else op.Mul(y, 1.0 - n)


def _order(x: Tensor) -> int:
    n = None if x.shape is None else x.shape[-1]
    if not isinstance(n, int) or n > _LARGEST_DETERMINANT:
        raise UnsupportedOp(
            f"Det: {x.name!r} is of order {'unknown' if n is None else n}; known orders up to "
            f"{_LARGEST_DETERMINANT} have a VJP rule. {TRACED}"
        )
    return n
