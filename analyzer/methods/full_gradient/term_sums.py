"""The sums of a term by cell, and its ψ, as ONNX: what the decomposition and its maps are made of.

From a gradient laid out by cells (analyzer/placement/terms.py) and the residual that multiplies it, to one number a
cell. A residual that is the same in every cell, such as a layer's bias, is never multiplied out over the image: Σ_c
g_c b_c is a product of g and a vector, and the extremes of |g_c b_c| follow from those of |g_c|. What such a term
costs is a few readings of the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.methods.full_gradient.maps import PostProcessing
from analyzer.placement.terms import Placement, Spot


@dataclass(frozen=True)
class Laid:
    """A term by cells: `cells` (N, before, cells, after), times `weights` (1, before, 1, 1) where `after` is 1."""

    cells: Tensor
    before: int
    after: int
    weights: np.ndarray | None = None


@dataclass(frozen=True)
class TermSums:
    """Sums over what shares a cell, each (N, cells): of the term, of its absolute values, and of its ψ."""

    signed: Tensor
    absolute: Tensor
    salient: Tensor


def lay(op: Builder, place: Placement, spot: Spot, factor: Tensor, weights: np.ndarray | None = None) -> Laid:
    """The term factor ⊙ weights at a spot of its tensor."""
    return Laid(place.by_cell(op, factor, spot), spot.before, place.after(spot), weights)


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


def term_sums(op: Builder, term: Laid, psi: PostProcessing) -> TermSums:
    """The sums of a term by cell."""
    magnitude = op.Abs(term.cells)
    weights = None if term.weights is None else op.tensor(term.weights)
    size = None if term.weights is None else op.tensor(np.abs(term.weights))
    absolute = _summed(op, term, magnitude, size)
    if psi.per_channel:
        salient = _by_channel(op, term, magnitude, size, psi)
    else:
        salient = _by_sample(op, term, magnitude, size, absolute, psi)
    return TermSums(_summed(op, term, term.cells, weights), absolute, salient)


def _by_sample(
    op: Builder, term: Laid, magnitude: Tensor, size: Tensor | None, absolute: Tensor, psi: PostProcessing
) -> Tensor:
    """ψ whose minimum and range are the sample's: they come out of the sum over a cell."""
    least = most = magnitude
    if size is not None:
        least, most = (op.Mul(t, size) for t in _extremes(op, term, magnitude))
    low, high = op.ReduceMin(least, [1, 2, 3], keepdims=1), op.ReduceMax(most, [1, 2, 3], keepdims=1)
    scale = op.Squeeze(op.Add(op.Sub(high, low), psi.epsilon), [2, 3])
    shared = op.Squeeze(op.Mul(low, float(term.before * term.after)), [2, 3])
    return op.Div(op.Sub(absolute, shared), scale)


def _by_channel(
    op: Builder, term: Laid, magnitude: Tensor, size: Tensor | None, psi: PostProcessing
) -> Tensor:
    """ψ whose minimum and range are each channel's."""
    low, high = _extremes(op, term, magnitude)
    spread = op.Sub(high, low)
    if size is None:
        weights = op.Reciprocal(op.Add(spread, psi.epsilon))
    else:
        weights = op.Div(size, op.Add(op.Mul(spread, size), psi.epsilon))
    # The minimum goes first: a channel that is the same everywhere leaves 0, not the rounding of its sum.
    return _summed(op, term, op.Sub(magnitude, low), weights)


def _extremes(op: Builder, term: Laid, magnitude: Tensor) -> tuple[Tensor, Tensor]:
    """The least and the greatest of each channel, (N, before, 1, after)."""
    if term.after > 1:
        return op.ReduceMin(magnitude, [2], keepdims=1), op.ReduceMax(magnitude, [2], keepdims=1)
    # Reductions of ONNX Runtime are fast over the last axis, and slow where an axis of one element follows.
    rows = op.Squeeze(magnitude, [3])
    least, most = op.ReduceMin(rows, [2], keepdims=1), op.ReduceMax(rows, [2], keepdims=1)
    return op.Unsqueeze(least, [3]), op.Unsqueeze(most, [3])


def _summed(op: Builder, term: Laid, cells: Tensor, weights: Tensor | None) -> Tensor:
    """Σ weights ⊙ cells over what shares a cell, (N, cells); weights (N or 1, before, 1, after).

    As products with a vector: matrix kernels read the cells faster than reductions do.
    """
    before, after = term.before, term.after
    if weights is not None and (before > 1) == (after > 1):
        cells, weights = op.Mul(cells, weights), None
    if after > 1:
        column = op.tensor(np.ones((after, 1), cells.dtype)) if weights is None else weights
        cells = op.MatMul(cells, op.Reshape(column, [-1, 1, after, 1]))
        weights = None
    if before > 1:
        row = op.tensor(np.ones(before, cells.dtype)) if weights is None else weights
        return op.Squeeze(op.MatMul(op.Reshape(row, [-1, 1, before]), op.Squeeze(cells, [3])), [1])
    return op.Squeeze(cells, [1, 3])
