"""FullGrad's two maps as ONNX: the published saliency map, and the complete one that sums to the output.

Terms come laid out by cells (analyzer/placement/terms.py). Rescaling is per sample or per channel and resizing is
linear, so elements of one cell are summed before resizing, and layers of one grid are added before they are resized
together: the published map for a small part of its cost. What a crop of the image adds is resized into the part that
the crop saw.
Sources: Srinivas & Fleuret 2019, section 4, and the authors' post-processing; pytorch-grad-cam 1.5 for its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.placement import Grid, whole
from analyzer.placement.cells import Interval
from analyzer.placement.terms import Placement, Spot
from analyzer.types import Sizes

LaidOutTerm = tuple[tuple[Grid, ...], Tensor]
"""What a term adds to the cells of one input, (N, cells), and the grids of these cells."""


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


def saliency_map(op: Builder, layers: Sequence[LaidOutTerm], sizes: Sizes, psi: PostProcessing) -> Tensor:
    """The sum of layers (N, cells), each on its grids, as a map (N, *sizes)."""
    parts = _by_grid(op, layers, lambda grid: Grid(grid.sizes, grid.frame, grid.frame))
    total = _sum(op, [_resized(op, part, grid, sizes, psi) for grid, part in parts.items()])
    if not psi.rescale_map:
        return total
    spatial = list(range(1, 1 + len(sizes)))
    raised = op.Sub(total, op.ReduceMin(total, spatial, keepdims=1))
    return op.Div(raised, op.Add(op.ReduceMax(raised, spatial, keepdims=1), psi.epsilon))


def complete_map(op: Builder, layers: Sequence[LaidOutTerm], sizes: Sizes) -> Tensor:
    """The sum of signed layers (N, cells) as a map (N, *sizes) of the same sum: no mass is made or lost."""
    maps = []
    pixels = whole(sizes)
    for grid, layer in _by_grid(op, layers, lambda grid: grid).items():
        total = op.Reshape(layer, [-1, *grid.sizes])
        if grid != pixels:
            for axis, size in enumerate(sizes):
                weights = spreading(grid.sizes[axis], size, grid.window[axis], grid.frame[axis])
                total = _spread(op, total, axis, len(sizes), weights)
        maps.append(total)
    return _sum(op, maps)


def _by_grid(op: Builder, layers: Sequence[LaidOutTerm], key: Callable[[Grid], Grid]) -> dict[Grid, Tensor]:
    """The sum of all layers of each grid; what lies on several grids is taken apart."""
    found: dict[Grid, list[Tensor]] = {}
    for grids, layer in layers:
        first = 0
        for grid in grids:
            end = first + grid.cells
            part = layer if len(grids) == 1 else op.Slice(layer, [first], [end], [1])
            found.setdefault(key(grid), []).append(part)
            first = end
    return {grid: _sum(op, parts) for grid, parts in found.items()}


def spreading(
    cells: int, size: int, window: Interval | None = None, frame: Interval | None = None
) -> np.ndarray:
    """(size, cells): how much of each cell's mass every pixel takes. Each column sums to one.

    window: the part of the axis that the cells divide, in pixels; frame: the part that may take mass; both default to
    all of it. Linear interpolation between the centres of the cells, normalised: what a border cell cannot give beyond
    the frame stays within it.
    """
    start, stop = (float(end) for end in window or (0, size))
    low, high = (float(end) for end in frame or (0, size))
    width = max((stop - start) / cells, 1.0)
    pixels = np.arange(size)
    inside = (pixels > low - 1) & (pixels < high)
    centres = start + (np.arange(cells) + 0.5) * (stop - start) / cells - 0.5
    # A centre may lie in the padding: what stands there stands at the border.
    centres = np.clip(centres, pixels[inside][0], pixels[inside][-1])
    weights = np.maximum(0, 1 - np.abs(pixels[:, None] - centres) / width) * inside[:, None]
    spread: np.ndarray = weights / weights.sum(axis=0)
    return spread


def _spread(op: Builder, total: Tensor, axis: int, rank: int, weights: np.ndarray) -> Tensor:
    """Multiply axis 1 + `axis` of (N, *grid) by a matrix (pixels, cells)."""
    if weights.shape[0] == weights.shape[1] and (weights == np.eye(len(weights))).all():
        return total
    letters = "abcdefgh"[:rank]
    result = letters.replace(letters[axis], "z")
    matrix = op.tensor(weights.astype(total.dtype))
    return op.Einsum(matrix, total, equation=f"z{letters[axis]},n{letters}->n{result}")


def _resized(op: Builder, layer: Tensor, grid: Grid, sizes: Sizes, psi: PostProcessing) -> Tensor:
    """A layer (N, cells) at the image's resolution, by (bi)linear interpolation; zero beyond its frame."""
    bounds = [
        (max(math.floor(low), 0), min(math.ceil(high), size))
        for (low, high), size in zip(grid.frame, sizes, strict=True)
    ]
    extent = tuple(end - first for first, end in bounds)
    if grid.sizes == extent:
        resized = op.Reshape(layer, [-1, *extent])
    else:
        spatial = list(range(2, 2 + len(extent)))
        mode = "align_corners" if psi.align_corners else "half_pixel"
        resized = op.Resize(
            op.Reshape(layer, [-1, 1, *grid.sizes]),
            None,
            None,
            list(extent),
            axes=spatial,
            mode="linear",
            coordinate_transformation_mode=mode,
        )
        resized = op.Reshape(resized, [-1, *extent])
    if extent == sizes:
        return resized
    before, after = zip(
        *((first, size - end) for (first, end), size in zip(bounds, sizes, strict=True)), strict=True
    )
    return op.Pad(resized, [0, *before, 0, *after])


def _sum(op: Builder, parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else op.Sum(*parts)


def everywhere(placement: Placement, root: str, sizes: Sizes) -> Spot:
    """Of a tensor of one position, such as a squeezed layer: in the published map it counts for the whole image."""
    return Spot(root, (whole((1,) * len(sizes), sizes),), placement.elements)
