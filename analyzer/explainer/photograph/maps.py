"""Maps of the input back to the photograph: crop, padding and scale undone, as nodes.

From a map (N, h, w) to (N, height, width), of the photograph's size; 0 where the network did not see the photograph.
"""

from __future__ import annotations

from collections.abc import Sequence

from analyzer.explainer.photograph.bands import Bands, find_bands
from analyzer.explainer.photograph.filters import FILTERS
from analyzer.explainer.photograph.geometry import Axis
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor

_BLOCKS = 16


class Restoring:
    """Resizes maps of one size, (h, w) int64 scalars, by Pillow's filter "bilinear", as the figures do."""

    def __init__(self, op: Builder, axes: Sequence[Axis], size: tuple[Tensor, Tensor]) -> None:
        self._op = op
        self._rows, self._columns = (
            self._bands(axis, length, transposed)
            for axis, length, transposed in zip(axes, size, (False, True), strict=True)
        )

    def _bands(self, axis: Axis, length: Tensor, transposed: bool) -> Bands:
        op = self._op
        positions, seen = axis.to_photograph(op, length)
        return find_bands(op, positions, FILTERS["bilinear"], _BLOCKS, transposed=transposed, where=seen)

    def __call__(self, plane: Tensor) -> Tensor:
        """Emit a map of the photograph's size, float32."""
        op, rows, columns = self._op, self._rows, self._columns
        wide = [
            op.MatMul(op.Slice(plane, begin, end, [2]), weights)
            for begin, end, weights in zip(columns.begins, columns.ends, columns.weights, strict=True)
        ]
        plane = op.Slice(op.Concat(*wide, axis=2), [0], columns.count, [2])
        tall = [
            op.MatMul(weights, op.Slice(plane, begin, end, [1]))
            for begin, end, weights in zip(rows.begins, rows.ends, rows.weights, strict=True)
        ]
        return op.Slice(op.Concat(*tall, axis=1), [0], rows.count, [1])
