"""Stack the terms that have the same cells: one node in place of one for each term.

From the sums of each term (term_sums.py) to arrays with the terms of one grid along axis 1: what is added to the maps,
and the totals. A network has a hundred terms, and what follows their sums is so small that the number of nodes counts.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.methods.full_gradient.maps import PostProcessing
from analyzer.methods.full_gradient.term_sums import CellSums, Laid, cell_sums, within


@dataclass(frozen=True)
class Stack:
    """Terms of the same cells, which are numbered by `members`.

    signed, absolute: sums by position, (N, terms, positions); salient: sums of ψ by cell, (N, terms, cells). inside: as
    in `Laid`.
    """

    members: tuple[int, ...]
    signed: Tensor
    absolute: Tensor
    salient: Tensor
    inside: tuple[int, int] | None

    def layer(self, op: Builder) -> Tensor:
        """The sum of all terms by cell, (N, cells)."""
        return _summed(op, within(op, self.signed, self.inside), len(self.members))

    def salient_layer(self, op: Builder) -> Tensor:
        """The sum of ψ of all terms by cell, (N, cells)."""
        return _summed(op, self.salient, len(self.members))


def _summed(op: Builder, stack: Tensor, count: int) -> Tensor:
    """The sum over axis 1, of `count` elements, as a product: matrix kernels read such columns ten times as fast."""
    if count == 1:
        return op.Squeeze(stack, [1])
    return op.MatMul(op.tensor(np.ones(count, stack.dtype)), stack)


def stacked(
    op: Builder, terms: Sequence[CellSums], keys: Sequence[Hashable], psi: PostProcessing
) -> list[Stack]:
    """Stack the terms whose keys and cells are equal, in the order of their first."""
    groups: dict[tuple[Hashable, object], list[int]] = {}
    for number, (key, term) in enumerate(zip(keys, terms, strict=True)):
        groups.setdefault((key, term.inside), []).append(number)
    found = []
    for members in groups.values():
        # Those of equal runs side by side.
        members.sort(key=lambda number: terms[number].runs)
        own = [terms[number] for number in members]
        signed, absolute, rest = _side_by_side(op, own, psi)
        if psi.per_channel:
            salient = rest
        else:
            low, high = (op.Unsqueeze(one, [2]) for one in _extremes(op, own, rest))
            counts = op.tensor(np.array([one.count for one in own], low.dtype).reshape(1, -1, 1))
            shared, spread = op.Mul(low, counts), op.Add(op.Sub(high, low), psi.epsilon)
            salient = op.Div(op.Sub(within(op, absolute, own[0].inside), shared), spread)
        found.append(Stack(tuple(members), signed, absolute, salient, own[0].inside))
    return found


def _side_by_side(
    op: Builder, terms: Sequence[CellSums], psi: PostProcessing
) -> tuple[Tensor, Tensor, Tensor]:
    """The signed and the absolute sums, (N, terms, positions), and ψ by channel alike, else extremes, (N, all runs).

    One node reads all sums of all terms. ONNX Runtime computes the inputs of a node one after the other, the last
    emitted first: all sums of a term while its gradient is in the cache, and the terms in the order of their gradients.
    """
    count, positions = len(terms), terms[0].positions
    inside = terms[0].inside
    cells = positions if inside is None else inside[1]
    parts = [[one.signed for one in terms], [one.absolute for one in terms]]
    if psi.per_channel:
        parts.append([one.salient for one in terms if one.salient is not None])
    else:
        parts += [[one.least for one in terms], [one.most for one in terms]]
    together = op.Concat(*(one for kind in parts for one in kind), axis=1)
    width = count * positions
    end = 2 * width + (count * cells if psi.per_channel else 2 * sum(one.runs for one in terms))
    signed, absolute, rest = (
        op.Slice(together, [first], [last], [1])
        for first, last in ((0, width), (width, 2 * width), (2 * width, end))
    )
    signed, absolute = (op.Reshape(one, [-1, count, positions]) for one in (signed, absolute))
    return signed, absolute, op.Reshape(rest, [-1, count, cells]) if psi.per_channel else rest


def _extremes(op: Builder, terms: Sequence[CellSums], rest: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest absolute value of each term, (N, terms), from those of its runs."""
    runs = sum(one.runs for one in terms)
    if any(one.scales is not None for one in terms):
        scales = np.concatenate([np.ones(one.runs) if one.scales is None else one.scales for one in terms])
        rest = op.Mul(rest, op.tensor(np.tile(scales, 2).astype(rest.dtype)[None]))
    found = []
    for first, reduction in ((0, "ReduceMin"), (runs, "ReduceMax")):
        parts = []
        for width, alike in itertools.groupby(terms, key=lambda one: one.runs):
            count = len(list(alike))
            part = op.Slice(rest, [first], [first + count * width], [1])
            if width > 1:
                part = op.emit(reduction, [op.Reshape(part, [-1, count, width]), [2]], keepdims=0)
            parts.append(part)
            first += count * width
        found.append(joined(op, parts))
    return found[0], found[1]


def term_sums(op: Builder, term: Laid, psi: PostProcessing) -> tuple[Tensor, Tensor, Tensor]:
    """The sums of one term by cell, each (N, cells): of the term, of its absolute values, and of its ψ."""
    (stack,) = stacked(op, [cell_sums(op, term, psi)], [None], psi)
    signed, absolute = (within(op, one, stack.inside) for one in (stack.signed, stack.absolute))
    return op.Squeeze(signed, [1]), op.Squeeze(absolute, [1]), op.Squeeze(stack.salient, [1])


def totals(op: Builder, stacks: Sequence[Stack], *, absolute: bool = False, placed: bool = False) -> Tensor:
    """The sum of each term in double precision, (N, terms), stack by stack. placed: of its cells alone."""
    sums = []
    for stack in stacks:
        part = stack.absolute if absolute else stack.signed
        part = within(op, part, stack.inside) if placed else part
        sums.append(op.ReduceSum(op.Cast(part, to=onnx.TensorProto.DOUBLE), [2], keepdims=0))
    return joined(op, sums)


def joined(op: Builder, parts: Sequence[Tensor]) -> Tensor:
    """Parts along axis 1."""
    return parts[0] if len(parts) == 1 else op.Concat(*parts, axis=1)
