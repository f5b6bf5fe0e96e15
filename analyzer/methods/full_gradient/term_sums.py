"""The sums of terms by cell, and their ψ, as ONNX: what the decomposition and its maps are made of.

From gradients laid out by cells (analyzer/placement/terms.py) and the residuals that multiply them, to one number a
cell. A residual that is the same in every cell, such as a layer's bias, is never multiplied out over the image: Σ_c
g_c b_c is a product of g and a vector, and the extremes of |g_c b_c| follow from those of |g_c|. Such a term costs a
few readings of the gradient. Terms of the same cells are stacked, so that everything after these readings takes one
node for all of them (stacks.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.methods.full_gradient.maps import PostProcessing
from analyzer.ops.masking import product
from analyzer.ops.support import CutOff, Scaled
from analyzer.placement.terms import Placement, Spot


@dataclass(frozen=True)
class Laid:
    """A term by cells: `cells`, (N, before, positions) where `after` is 1, else (N, before, positions, after).

    weights: (1, before, 1, 1), that the cells are multiplied by, where `after` is 1. inside: the first position that
    is a cell, and their number; None for all positions.
    """

    cells: Tensor
    before: int
    positions: int
    after: int
    weights: np.ndarray | None = None
    inside: tuple[int, int] | None = None


@dataclass(frozen=True)
class CellSums:
    """Of a term, the sums over each position, (N, positions), and extremes of the absolute values.

    least, most: (N, runs) of the runs that have a weight in common; scales: the absolute weights of these, or None.
    salient: sums of ψ, (N, cells), where ψ rescales by channel. count: the elements of a cell.
    """

    signed: Tensor
    absolute: Tensor
    least: Tensor
    most: Tensor
    positions: int
    runs: int
    scales: np.ndarray | None
    count: int
    inside: tuple[int, int] | None
    salient: Tensor | None


def lay(op: Builder, place: Placement, spot: Spot, factor: Tensor, weights: np.ndarray | None = None) -> Laid:
    """The term factor ⊙ weights at a spot of its tensor."""
    after = place.after(spot)
    return Laid(place.by_position(op, factor, spot), spot.before, spot.count, after, weights, spot.inside)


def laid_term(
    op: Builder, place: Placement, spot: Spot, gradient: Tensor, r: Tensor | None, of: Tensor
) -> Laid:
    """The term gradient ⊙ r at a spot of its tensor `of`, with what is the same in all cells as weights."""
    if r is None:
        return lay(op, place, spot, gradient)
    weights = channel_weights(place, spot, r, of)
    if weights is not None:
        return lay(op, place, spot, gradient, weights)
    made = op.notes.get(r.name)
    if isinstance(made, Scaled) and spot.members is None and place.after(spot) == 1:
        alike = np.full((1, spot.before, 1, 1), made.factor, gradient.dtype)
        return lay(op, place, spot, _where_met(op, gradient, made, of), alike)
    return lay(op, place, spot, product(op, gradient, r))


def _where_met(op: Builder, gradient: Tensor, r: Scaled, of: Tensor) -> Tensor:
    """The gradient where the output of a Clip is its bound, else 0."""
    cut = op.notes.get(of.name)
    if isinstance(cut, CutOff) and cut.g.name == gradient.name:
        # Two factors of the backward pass differ by it: one subtraction, which is exact.
        return op.Sub(cut.above, cut.inside)
    return product(op, gradient, r.tensor)


def channel_weights(place: Placement, spot: Spot, r: Tensor | None, of: Tensor) -> np.ndarray | None:
    """The residual of the tensor `of` as weights of its cells, where it is one known number for each channel."""
    if r is None or r.constant is None or of.shape is None:
        return None
    if spot.members is not None or place.blocks > 1 or place.after(spot) > 1:
        return None
    # In (before, cells), `before` begins with axis 1.
    shape = (1,) * (len(of.shape) - r.constant.ndim) + r.constant.shape
    if r.constant.size > 1 and (len(shape) < 2 or not shape[1] == r.constant.size == spot.before):
        return None
    return np.broadcast_to(r.constant.reshape(-1), spot.before).reshape(1, -1, 1, 1)


def cell_sums(op: Builder, term: Laid, psi: PostProcessing) -> CellSums:
    """The sums of a term by position, and what its ψ is made of."""
    magnitude = op.Abs(term.cells)
    weights = None if term.weights is None else term.weights.reshape(-1)
    size = None if weights is None else np.abs(weights)
    least, most = _extremes(op, term, magnitude)
    return CellSums(
        _summed(op, term, term.cells, weights),
        _summed(op, term, magnitude, size),
        least,
        most,
        term.positions,
        term.before,
        None if size is None or (size == 1).all() else size,
        term.before * term.after,
        term.inside,
        _by_channel(op, term, magnitude, size, psi) if psi.per_channel else None,
    )


def _by_channel(
    op: Builder, term: Laid, magnitude: Tensor, size: np.ndarray | None, psi: PostProcessing
) -> Tensor:
    """ψ whose minimum and range are each channel's."""
    magnitude = within(op, magnitude, term.inside)
    low, high = op.ReduceMin(magnitude, [2], keepdims=1), op.ReduceMax(magnitude, [2], keepdims=1)
    spread = op.Sub(high, low)
    if size is None:
        weights = op.Reciprocal(op.Add(spread, psi.epsilon))
    else:
        scales = op.tensor(size.reshape(1, -1, 1))
        weights = op.Div(scales, op.Add(op.Mul(spread, scales), psi.epsilon))
    # The minimum goes first: a channel that is the same everywhere leaves 0, not the rounding of its sum.
    return _summed(op, replace(term, inside=None), op.Mul(op.Sub(magnitude, low), weights), None)


def _extremes(op: Builder, term: Laid, magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest of the cells by run, (N, before)."""
    if term.after == 1:
        # Reductions of ONNX Runtime are fast over the last axis, and slow where an axis of one element follows.
        cells = within(op, magnitude, term.inside)
        return op.ReduceMin(cells, [2], keepdims=0), op.ReduceMax(cells, [2], keepdims=0)
    least, most = op.ReduceMin(magnitude, [3], keepdims=0), op.ReduceMax(magnitude, [3], keepdims=0)
    least, most = (within(op, one, term.inside) for one in (least, most))
    return op.ReduceMin(least, [2], keepdims=0), op.ReduceMax(most, [2], keepdims=0)


def within(op: Builder, positions: Tensor, inside: tuple[int, int] | None) -> Tensor:
    """The cells among the positions along axis 2."""
    if inside is None:
        return positions
    return op.Slice(positions, [inside[0]], [sum(inside)], [2])


def _summed(op: Builder, term: Laid, cells: Tensor, weights: np.ndarray | None) -> Tensor:
    """Σ weights ⊙ cells over what shares a position, (N, positions); weights (before,), where `after` is 1.

    As products with a vector: matrix kernels read the cells faster than reductions do.
    """
    dtype = cells.dtype
    if term.after > 1:
        # A vector without its second axis is slow in ONNX Runtime.
        cells = op.MatMul(cells, op.tensor(np.ones((term.after, 1), dtype)))
        cells = op.Squeeze(cells, [1, 3] if term.before == 1 else [3])
    elif term.before == 1:
        cells = op.Squeeze(cells, [1])
    if term.before == 1:
        return cells if weights is None else op.Mul(cells, op.tensor(weights.astype(dtype)))
    return op.MatMul(op.tensor((np.ones(term.before) if weights is None else weights).astype(dtype)), cells)
