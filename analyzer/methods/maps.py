"""FullGrad's two maps as ONNX: the published saliency map, and the complete one that sums to the output.

Terms come laid out by cells (placement.py). Rescaling is per sample or per channel and resizing is linear, so
what shares a cell is summed before resizing, and layers of one grid are added before they are resized together: the
published map for a small part of its cost. Sources: Srinivas & Fleuret 2019, section 4, and the authors'
post-processing; pytorch-grad-cam 1.5 for its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.cells import Grid
from analyzer.emitter import Emitter
from analyzer.graph import Tensor
from analyzer.methods.placement import Placement


@dataclass(frozen=True)
class PostProcessing:
    """ψ, what a term goes through before it is added to the saliency map.

    per_channel: rescale |term| to [0, 1] by channel, not by sample. epsilon: added to the range. align_corners: of the
    bilinear resizing. rescale_map: rescale the final map to [0, 1], too.
    """

    per_channel: bool = False
    epsilon: float = 1e-6
    align_corners: bool = True
    rescale_map: bool = False


PUBLISHED = PostProcessing()
PYTORCH_GRAD_CAM = PostProcessing(per_channel=True, epsilon=1e-7, align_corners=False, rescale_map=True)


def rescaled(op: Emitter, cells: Tensor, psi: PostProcessing) -> Tensor:
    """ψ of a term (N, before, cells, after), summed over what shares a cell: (N, cells)."""
    magnitude = op.Abs(cells)
    over = [2] if psi.per_channel else [1, 2, 3]
    low = op.ReduceMin(magnitude, over, keepdims=1)
    high = op.ReduceMax(magnitude, over, keepdims=1)
    scale = op.Add(op.Sub(high, low), psi.epsilon)
    if psi.per_channel:
        return op.ReduceSum(op.Div(op.Sub(magnitude, low), scale), [1, 3], keepdims=0)
    # The minimum and the range are the sample's: they come out of the sum over a cell.
    shape = op.Shape(magnitude)
    shared = op.Mul(op.Gather(shape, 1), op.Gather(shape, 3))
    summed = op.Sub(
        op.ReduceSum(magnitude, [1, 3], keepdims=1), op.Mul(low, op.Cast(shared, to=op.dtype_of(cells)))
    )
    return op.Squeeze(op.Div(summed, scale), [1, 3])


def saliency_map(
    op: Emitter, layers: Sequence[tuple[Grid, Tensor]], sizes: Grid, psi: PostProcessing
) -> Tensor:
    """The sum of layers (N, cells), each at its grid, as a map (N, *sizes)."""
    maps = [_resized(op, total, grid, sizes, psi) for grid, total in _by_grid(op, layers).items()]
    total = _sum(op, maps)
    if not psi.rescale_map:
        return total
    spatial = list(range(1, 1 + len(sizes)))
    raised = op.Sub(total, op.ReduceMin(total, spatial, keepdims=1))
    return op.Div(raised, op.Add(op.ReduceMax(raised, spatial, keepdims=1), psi.epsilon))


def complete_map(op: Emitter, layers: Sequence[tuple[Grid, Tensor]], sizes: Grid) -> Tensor:
    """The sum of signed layers (N, cells) as a map (N, *sizes) of the same sum: no mass is made or lost."""
    maps = []
    for grid, layer in _by_grid(op, layers).items():
        total = op.Reshape(layer, [-1, *grid])
        for axis, (cells, size) in enumerate(zip(grid, sizes, strict=True)):
            if cells != size:
                total = _spread(op, total, axis, len(grid), spreading(cells, size))
        maps.append(total)
    return _sum(op, maps)


def _by_grid(op: Emitter, layers: Sequence[tuple[Grid, Tensor]]) -> dict[Grid, Tensor]:
    """The sum of all layers of each grid."""
    found: dict[Grid, list[Tensor]] = {}
    for grid, layer in layers:
        found.setdefault(grid, []).append(layer)
    return {grid: _sum(op, parts) for grid, parts in found.items()}


def spreading(cells: int, size: int) -> np.ndarray:
    """(size, cells): how much of each cell's mass every pixel takes. Each column sums to one.

    Linear interpolation between the centres of the cells, normalised: what a border cell cannot give beyond the
    image stays within it.
    """
    width = max(size / cells, 1.0)
    centres = (np.arange(cells) + 0.5) * size / cells - 0.5
    weights = np.maximum(0, 1 - np.abs(np.arange(size)[:, None] - centres) / width)
    spread: np.ndarray = weights / weights.sum(axis=0)
    return spread


def _spread(op: Emitter, total: Tensor, axis: int, rank: int, weights: np.ndarray) -> Tensor:
    """Multiply axis 1 + `axis` of (N, *grid) by a matrix (pixels, cells)."""
    letters = "abcdefgh"[:rank]
    result = letters.replace(letters[axis], "z")
    matrix = op.tensor(weights.astype(total.dtype))
    return op.Einsum(matrix, total, equation=f"z{letters[axis]},n{letters}->n{result}")


def _resized(op: Emitter, layer: Tensor, grid: Grid, sizes: Grid, psi: PostProcessing) -> Tensor:
    """A layer (N, cells) at the image's resolution, by (bi)linear interpolation."""
    if grid == sizes:
        return op.Reshape(layer, [-1, *sizes])
    spatial = list(range(2, 2 + len(grid)))
    mode = "align_corners" if psi.align_corners else "half_pixel"
    resized = op.Resize(
        op.Reshape(layer, [-1, 1, *grid]),
        None,
        None,
        list(sizes),
        axes=spatial,
        mode="linear",
        coordinate_transformation_mode=mode,
    )
    return op.Reshape(resized, [-1, *sizes])


def _sum(op: Emitter, parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else op.Sum(*parts)


def everywhere(placement: Placement, rank: int) -> Placement:
    """A tensor of one position, such as a squeezed layer: in the published map it counts for the whole image."""
    assert placement.members is None
    return Placement(placement.blocks, placement.elements, (1,) * rank, placement.elements)


def mass(op: Emitter, cells: Tensor) -> Tensor:
    """The signed sum of what shares a cell, (N, cells)."""
    return op.ReduceSum(cells, [1, 3], keepdims=0)
