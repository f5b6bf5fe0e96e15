"""GridSample: an image read at the points of a grid, differentiable in the image and in the grid."""

from __future__ import annotations

from typing import Any

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.eager import Composed
from analyzer.ops.registry import ExplicitRule, Kink, register
from analyzer.ops.resampling import taps as at
from analyzer.ops.support import axis_size, cast, rank_of, reshape_like


def _grid_sample(op: Builder, x: Tensor, grid: Tensor, **attributes: Any) -> Tensor:
    return _as_grid(op, at.sample(op, x, _taps(op, x, grid, **attributes)), x, grid)


def _taps(op: Builder, x: Tensor, grid: Tensor, align_corners: int, mode: str, padding_mode: str) -> at.Taps:
    # The grid's −1 is the centre of the first pixel or, unless corners are aligned, its edge.
    edge = 0.0 if align_corners else 1.0
    positions = [
        op.Div(op.Sub(op.Mul(op.Add(along, 1.0), extent), edge), 2.0)
        for along, extent in _coordinates(op, x, grid, align_corners)
    ]
    return at.take_taps(op, x, positions, mode, padding_mode, align_corners)


def _coordinates(op: Builder, x: Tensor, grid: Tensor, align: int) -> list[tuple[Tensor, Tensor]]:
    """For each spatial axis the grid's coordinate, (N, P, 1), and what its interval [−1, 1] spans in pixels."""
    rank = rank_of(x) - 2
    points = op.Reshape(grid, [0, -1, rank])
    # The grid lists the last axis first.
    parts = [op.Slice(points, [rank - 1 - i], [rank - i], [2]) for i in range(rank)]
    sizes = [axis_size(op, x, i + 2) for i in range(rank)]
    spans = [cast(op, op.Sub(size, [1]) if align else size, grid) for size in sizes]
    return list(zip(parts, spans, strict=True))


def _as_grid(op: Builder, samples: Tensor, x: Tensor, grid: Tensor) -> Tensor:
    """Samples (N, C, P) with the spatial axes of the grid."""
    sizes = [axis_size(op, grid, axis) for axis in range(1, rank_of(x) - 1)]
    return op.Reshape(samples, op.Concat([0, 0], *sizes, axis=0))


@register
class GridSample(ExplicitRule):
    kinks = (
        Kink("grid at a whole pixel, mode linear", "to the grid the slope towards the next pixel"),
        Kink("mode nearest", "to the grid 0"),
    )

    def torch(torch, x, grid, *, align_corners, mode, padding_mode):
        if x.dim() not in (4, 5) or (x.dim() == 5 and mode == "cubic"):
            given = {"align_corners": align_corners, "mode": mode, "padding_mode": padding_mode}
            return Composed(_grid_sample)(torch, x, grid, **given)
        name = {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode)
        return torch.nn.functional.grid_sample(x, grid, name, padding_mode, bool(align_corners))

    tensorflow = Composed(_grid_sample)

    # The nearest pixel does not move with the grid. At whole positions the polynomial above them holds.
    def vjp(op, g, y, x, grid, **attributes):
        taps = _taps(op, x, grid, **attributes)
        samples = op.Reshape(g, [0, 0, -1])

        def of_grid():
            spans = [op.Mul(span, 0.5) for _, span in _coordinates(op, x, grid, attributes["align_corners"])]
            moves = zip(at.of_positions(op, samples, x, taps), spans, strict=True)
            parts = [op.Unsqueeze(op.Mul(move, span), [-1]) for move, span in moves]
            return reshape_like(op, op.Concat(*reversed(parts), axis=-1), grid)

        return lambda: at.unsample(op, samples, x, taps), None if attributes["mode"] == "nearest" else of_grid

    # Linear in x; J grid by the derivatives of the weights.
    def residual(op, active, y, x, grid, **attributes):
        if not active[1] or attributes["mode"] == "nearest":
            return None if active[0] else y
        moves = _coordinates(op, x, grid, attributes["align_corners"])
        tangents = [op.Mul(op.Mul(along, span), 0.5) for along, span in moves]
        change = _as_grid(op, at.moved(op, x, _taps(op, x, grid, **attributes), tangents), x, grid)
        return op.Neg(change) if active[0] else op.Sub(y, change)
