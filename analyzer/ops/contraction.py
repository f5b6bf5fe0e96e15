"""Einsum: sums of products along named axes."""

from __future__ import annotations

from analyzer.emitter import Emitter
from analyzer.errors import UnsupportedOp
from analyzer.graph import Tensor
from analyzer.ops.registry import Multilinear, register
from analyzer.ops.support import expand_like, rank_of


@register
class Einsum(Multilinear):
    def torch(torch, *operands, equation):
        return torch.einsum(equation.replace(" ", ""), *operands)

    def tensorflow(tf, *operands, equation):
        return tf.einsum(equation.replace(" ", ""), *operands)

    # The derivative along an operand contracts the cotangent with the other operands.
    def vjp(op, g, y, *operands, equation):
        terms, result = parse(equation, [rank_of(operand) for operand in operands], rank_of(y))
        return tuple((lambda i=i: _gradient(op, g, operands, terms, result, i)) for i in range(len(operands)))


def parse(equation: str, ranks: list[int], result_rank: int) -> tuple[list[str], str]:
    """The axes of every operand and of the result, an ellipsis written out as letters of its own."""
    left, arrow, result = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if not arrow:
        letters = "".join(terms).replace(".", "")
        result = ("..." if "..." in left else "") + "".join(
            sorted(c for c in set(letters) if letters.count(c) == 1)
        )
    free = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    hidden = [rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=True) if "..." in term]
    most = max(hidden, default=0)

    def written(term: str, rank: int) -> str:
        count = rank - len(term) + 3
        return term.replace("...", "".join(free[most - count : most])) if "..." in term else term

    return [written(term, rank) for term, rank in zip(terms, ranks, strict=True)], written(
        result, result_rank
    )


def _gradient(
    op: Emitter, g: Tensor, operands: tuple[Tensor, ...], terms: list[str], result: str, index: int
) -> Tensor:
    term = terms[index]
    if len(set(term)) < len(term):
        raise UnsupportedOp(f"Einsum: the operand {term!r} names an axis twice, which has no VJP rule")
    for letter in term:
        sizes = {
            o.shape[t.index(letter)] for o, t in zip(operands, terms, strict=True) if o.shape and letter in t
        }
        if len(sizes) > 1 and 1 in sizes:
            raise UnsupportedOp(f"Einsum: the axis {letter!r} is broadcast, which has no VJP rule")
    others = [(t, operand) for i, (t, operand) in enumerate(zip(terms, operands, strict=True)) if i != index]
    known = set(result).union(*[set(t) for t, _ in others])
    kept = "".join(letter for letter in term if letter in known)
    equation = ",".join([result, *[t for t, _ in others]]) + "->" + kept
    contracted = op.Einsum(g, *[operand for _, operand in others], equation=equation)
    if kept == term:
        return contracted
    # An axis that only this operand has was summed over: every element along it has the same gradient.
    missing = [axis for axis, letter in enumerate(term) if letter not in known]
    return expand_like(op, op.Unsqueeze(contracted, missing), operands[index])
