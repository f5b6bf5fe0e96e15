"""Einsum: sums of products along named axes, with diagonals, an ellipsis and axes of size 1 that broadcast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.registry import Multilinear, register
from analyzer.ops.support import expand_like, filled, rank_of


@register
class Einsum(Multilinear):
    def torch(torch, *operands, equation):
        return torch.einsum(equation.replace(" ", ""), *operands)

    def tensorflow(tf, *operands, equation):
        terms, result = parse(equation, [len(operand.shape) for operand in operands])
        shapes = [tuple(operand.shape) for operand in operands]
        # TensorFlow broadcasts no named axis: an axis of size 1 is left out where another operand is longer.
        narrow = [_narrow(terms, shapes, i) for i in range(len(terms))]
        squeezed = [
            tf.squeeze(operand, [i for i, letter in enumerate(term) if letter in ones]) if ones else operand
            for operand, term, ones in zip(operands, terms, narrow, strict=True)
        ]
        left = ["".join(c for c in term if c not in ones) for term, ones in zip(terms, narrow, strict=True)]
        return tf.einsum(f"{','.join(left)}->{result}", *squeezed)

    # The derivative along an operand contracts the cotangent with the other operands.
    def vjp(op, g, y, *operands, equation):
        terms, result = parse(equation, [rank_of(operand) for operand in operands])
        return tuple((lambda i=i: _gradient(op, g, operands, terms, result, i)) for i in range(len(operands)))


def parse(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The axes of every operand and of the result, an ellipsis written out as letters of its own."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = "".join(terms).replace(".", "")
        result = ("..." if "..." in left else "") + "".join(
            sorted(c for c in set(letters) if letters.count(c) == 1)
        )
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    hidden = [rank - len(term) + 3 if "..." in term else 0 for term, rank in zip(terms, ranks, strict=True)]
    most = max(hidden, default=0)
    written = [
        term.replace("...", "".join(free[most - count : most]))
        for term, count in zip(terms, hidden, strict=True)
    ]
    return written, result.replace("...", "".join(free[:most]))


def _narrow(terms: Sequence[str], shapes: Sequence[tuple[int | str | None, ...]], index: int) -> str:
    """The letters of one operand along which it has size 1 and is broadcast against another."""
    return "".join(
        letter
        for letter, size in zip(terms[index], shapes[index], strict=True)
        if size == 1
        and any(
            letter in term and shape[term.index(letter)] != 1
            for term, shape in zip(terms, shapes, strict=True)
        )
    )


def _gradient(
    op: Builder, g: Tensor, operands: Sequence[Tensor], terms: Sequence[str], result: str, index: int
) -> Tensor:
    term, operand = terms[index], operands[index]
    shapes = [o.shape or () for o in operands]
    others = [i for i in range(len(terms)) if i != index]
    # The letters that an axis of the contraction stands for: summed over where this operand was broadcast.
    known = set(result).union(*[set(terms[i]) for i in others]) - set(_narrow(terms, shapes, index))
    kept = "".join(letter for letter in dict.fromkeys(term) if letter in known)
    equation = ",".join([result, *[terms[i] for i in others]]) + "->" + kept
    contracted = op.Einsum(g, *[operands[i] for i in others], equation=equation)
    # Axes that the contraction lacks: a letter's second place, or one that only this operand has.
    missing = [i for i, letter in enumerate(term) if letter not in kept or i > term.index(letter)]
    wide = op.Unsqueeze(contracted, missing) if missing else contracted
    for i, letter in enumerate(term):
        if i > term.index(letter):
            wide = op.Mul(wide, _diagonal(op, operand, term.index(letter), i))
    alone = any(letter not in kept for letter in term)
    return expand_like(op, wide, operand) if alone or _is_longer(terms, shapes, result, index) else wide


def _is_longer(
    terms: Sequence[str], shapes: Sequence[tuple[int | str | None, ...]], result: str, index: int
) -> bool:
    """Whether every other operand has size 1 along an axis that is summed over."""
    return any(
        all(i == index or c not in t or shapes[i][t.index(c)] == 1 for i, t in enumerate(terms))
        for c, size in zip(terms[index], shapes[index], strict=True)
        if size != 1 and c not in result
    )


def _diagonal(op: Builder, x: Tensor, first: int, second: int) -> Tensor:
    """1 where the positions along two axes of x are equal, else 0; of size 1 along the other axes."""
    size = x.shape[first] if x.shape is not None else None
    if isinstance(size, int):
        eye = op.tensor(np.eye(size, dtype=x.dtype))
    else:
        length = op.Shape(x, start=first, end=first + 1)
        eye = op.EyeLike(filled(op, op.Concat(length, length, axis=0), 0, x))
    others = [axis for axis in range(rank_of(x)) if axis not in (first, second)]
    return op.Unsqueeze(eye, others) if others else eye
