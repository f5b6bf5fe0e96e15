"""RoiAlign and MaxRoiPool: regions of images pooled to one size.

The regions themselves are taken as constants, as in torchvision and Detectron: a gradient goes to the images alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.eager import Composed
from analyzer.ops.registry import Homogeneous, Kink, register
from analyzer.ops.resampling import taps as at
from analyzer.ops.support import axis_size, cast, zeros_like

_REGIONS = frozenset({1, 2})


def _images_of(op: Builder, x: Tensor, batch: Tensor) -> Tensor:
    """The image of every region, (R, C, H, W)."""
    return op.Gather(x, batch, axis=0)


def _back_to_images(op: Builder, g: Tensor, x: Tensor, batch: Tensor) -> Tensor:
    """The transpose of `_images_of`."""
    places = op.Unsqueeze(op.Cast(batch, to=7), [-1])
    return op.ScatterND(zeros_like(op, x), places, g, reduction="add")


def _numbers(op: Builder, count: Tensor, like: Tensor) -> Tensor:
    """0, 1, … below an int64 count of shape (1,)."""
    return cast(op, op.Range(np.asarray(0), op.Squeeze(count, [0]), np.asarray(1)), like)


@dataclass(frozen=True)
class _Samples:
    """Where the regions are read along one axis: positions, and whether there is a sample, within the image.

    positions, inside, exists: (R, bins, M). share: one over the number of samples in a bin, (R, 1, 1). Where all
    regions are alike R is 1.
    """

    positions: Tensor
    inside: Tensor
    exists: Tensor
    share: Tensor


def _samples(
    op: Builder, x: Tensor, rois: Tensor, axis: int, bins: int, ratio: int, scale: float, half_pixel: bool
) -> _Samples:
    # A region is x₁, y₁, x₂, y₂.
    first = 1 - axis
    start, end = (
        op.Sub(op.Mul(op.Unsqueeze(op.Slice(rois, [i], [i + 1], [1]), [2]), scale), 0.5 * half_pixel)
        for i in (first, first + 2)
    )
    length = op.Sub(end, start)
    if not half_pixel:
        length = op.Max(length, 1.0)
    width = op.Div(length, float(bins))
    # As many samples as pixels, unless their number is given.
    wanted = op.Max(op.Ceil(width), 0.0) if ratio <= 0 else op.tensor(np.full((1, 1, 1), ratio, rois.dtype))
    most = [ratio] if ratio > 0 else op.Max(op.Reshape(op.Cast(op.ReduceMax(wanted), to=7), [1]), [1])
    number = _numbers(op, op.tensor(most), rois)
    count = op.Max(wanted, 1.0)
    within = op.Div(op.Add(number, 0.5), count)
    bin_number = np.arange(bins, dtype=rois.dtype).reshape(-1, 1)
    positions = op.Add(start, op.Mul(op.Add(within, bin_number), width))
    size = cast(op, axis_size(op, x, axis + 2), rois)
    exists = op.And(op.Less(number, wanted), np.ones((bins, 1), bool))
    near = op.And(op.GreaterOrEqual(positions, -1.0), op.LessOrEqual(positions, size))
    clipped = op.Max(op.Min(positions, op.Sub(size, 1.0)), 0.0)
    return _Samples(clipped, near, exists, op.Reciprocal(count))


def _plan(
    op: Builder,
    x: Tensor,
    rois: Tensor,
    *,
    coordinate_transformation_mode: str,
    output_height: int,
    output_width: int,
    sampling_ratio: int,
    spatial_scale: float,
) -> list[_Samples]:
    half_pixel = coordinate_transformation_mode == "half_pixel"
    given = (sampling_ratio, spatial_scale, half_pixel)
    return [_samples(op, x, rois, i, bins, *given) for i, bins in enumerate((output_height, output_width))]


def _averages(op: Builder, x: Tensor, rois: Tensor, **attributes: Any) -> list[Tensor]:
    """The mean over samples as a matrix along each axis: (R, 1, bins, size)."""
    matrices = []
    for axis, samples in enumerate(_plan(op, x, rois, **attributes)):
        pixels = _numbers(op, axis_size(op, x, axis + 2), rois)
        distance = op.Abs(op.Sub(op.Unsqueeze(samples.positions, [-1]), pixels))
        weights = op.Relu(op.Sub(1.0, distance))
        counted = cast(op, op.And(samples.inside, samples.exists), rois)
        summed = op.ReduceSum(op.Mul(weights, op.Unsqueeze(counted, [-1])), [2], keepdims=0)
        matrices.append(cast(op, op.Unsqueeze(op.Mul(summed, samples.share), [1]), x))
    return matrices


@dataclass(frozen=True)
class _Candidates:
    """What a maximum chooses from: every tap of every sample times its weight, (R, bins, S, C).

    best: (R, bins, 1, C), the first greatest. taps: of the images of the regions, their weights 0 where no sample is.
    """

    products: Tensor
    best: Tensor
    taps: at.Taps


def _candidates(op: Builder, images: Tensor, x: Tensor, rois: Tensor, **attributes: Any) -> _Candidates:
    down, across = _plan(op, x, rois, **attributes)
    bins = attributes["output_height"] * attributes["output_width"]

    def in_rows(t: Tensor) -> Tensor:
        return op.Unsqueeze(t, [2, 4])

    def in_columns(t: Tensor) -> Tensor:
        return op.Unsqueeze(t, [1, 3])

    # Every pair of a row and a column: (R, bins down, bins across, samples down, samples across).
    rows, columns = in_rows(down.positions), in_columns(across.positions)
    pairs = [op.Add(rows, op.Mul(columns, 0.0)), op.Add(columns, op.Mul(rows, 0.0))]
    exists = op.And(in_rows(down.exists), in_columns(across.exists))
    read = op.And(op.And(in_rows(down.inside), in_columns(across.inside)), exists)
    points = [op.Reshape(pair, [0, -1, 1]) for pair in pairs]
    taps = at.take_taps(op, images, points, "linear", "border", 0)
    weights = op.Mul(taps.weights, op.Reshape(cast(op, read, x), [0, -1, 1]))
    taps = at.Taps(taps.rows, weights, taps.slopes)
    shape = op.Concat([0, bins, -1], axis_size(op, x, 1), axis=0)
    products = op.Reshape(op.Mul(at.read(op, images, taps), op.Unsqueeze(weights, [-1])), shape)
    # A sample has four taps.
    counts = op.Expand(op.Reshape(exists, [0, bins, -1, 1]), [1, 1, 1, 4])
    ranked = op.Where(op.Reshape(counts, [0, bins, -1, 1]), products, -float("inf"))
    return _Candidates(products, op.ArgMax(ranked, axis=2, keepdims=1), taps)


def _roi_align(
    op: Builder, x: Tensor, rois: Tensor, batch: Tensor, *, mode: str, **attributes: Any
) -> Tensor:
    images = _images_of(op, x, batch)
    if mode == "avg":
        down, across = _averages(op, x, rois, **attributes)
        return op.MatMul(op.MatMul(down, images), op.Transpose(across, perm=[0, 1, 3, 2]))
    found = _candidates(op, images, x, rois, **attributes)
    chosen = op.Squeeze(op.GatherElements(found.products, found.best, axis=2), [2])
    bins = [attributes["output_height"], attributes["output_width"]]
    return op.Reshape(op.Transpose(chosen, perm=[0, 2, 1]), op.Concat([0, 0], bins, axis=0))


@register
class RoiAlign(Homogeneous):
    kinks = (Kink("equal maxima in a bin, mode max", "the first of them"),)
    inactive = _REGIONS
    torch = tensorflow = Composed(_roi_align, constant=(1, 2))

    # The mean of bilinear samples is a matrix along each axis. A maximum is of the samples' four weighted taps,
    # as the standard's evaluator has it.
    def vjp(op, g, y, x, rois, batch, *, mode, **attributes):
        def of_x():
            if mode == "avg":
                down, across = _averages(op, x, rois, **attributes)
                of_images = op.MatMul(op.MatMul(op.Transpose(down, perm=[0, 1, 3, 2]), g), across)
                return _back_to_images(op, of_images, x, batch)
            images = _images_of(op, x, batch)
            found = _candidates(op, images, x, rois, **attributes)
            of_chosen = op.Unsqueeze(op.Transpose(op.Reshape(g, [0, 0, -1]), perm=[0, 2, 1]), [2])
            of_products = op.ScatterElements(zeros_like(op, found.products), found.best, of_chosen, axis=2)
            by_tap = op.Reshape(of_products, op.Concat([0, -1, 4], axis_size(op, x, 1), axis=0))
            updates = op.Mul(by_tap, op.Unsqueeze(found.taps.weights, [-1]))
            return _back_to_images(op, at.spread(op, updates, images, found.taps), x, batch)

        return of_x, None, None


@dataclass(frozen=True)
class _Maxima:
    """The position of every bin's maximum in the plane, (R, C, bins), and which bins are empty, (R, 1, bins)."""

    positions: Tensor
    empty: Tensor


def _bins(op: Builder, x: Tensor, rois: Tensor, axis: int, bins: int, scale: float) -> Tensor:
    """Which pixels along one axis every bin covers: (R, bins, size)."""
    # A region is its image, x₁, y₁, x₂, y₂; corners are rounded, halves away from 0.
    scaled = [op.Mul(op.Slice(rois, [i], [i + 1], [1]), scale) for i in (2 - axis, 4 - axis)]
    start, end = (op.Mul(op.Sign(s), op.Floor(op.Add(op.Abs(s), 0.5))) for s in scaled)
    width = op.Div(op.Max(op.Add(op.Sub(end, start), 1.0), 1.0), float(bins))
    number = np.arange(bins, dtype=rois.dtype)
    first = op.Add(op.Floor(op.Mul(width, number)), start)
    behind = op.Add(op.Ceil(op.Mul(width, number + 1)), start)
    pixels = _numbers(op, axis_size(op, x, axis + 2), rois)
    from_first = op.GreaterOrEqual(pixels, op.Unsqueeze(first, [2]))
    return op.And(from_first, op.Less(pixels, op.Unsqueeze(behind, [2])))


def _maxima(
    op: Builder, images: Tensor, x: Tensor, rois: Tensor, pooled_shape: list[int], spatial_scale: float
) -> _Maxima:
    rows, columns = (_bins(op, x, rois, i, bins, spatial_scale) for i, bins in enumerate(pooled_shape))
    # Along every row of pixels first, then over the rows: of equal maxima the first is found.
    lowest = -float("inf")
    by_column = op.Where(op.Unsqueeze(columns, [1, 2]), op.Unsqueeze(images, [3]), lowest)
    column = op.ArgMax(by_column, axis=4, keepdims=0)
    best = op.ReduceMax(by_column, [4], keepdims=0)
    by_row = op.Where(op.Unsqueeze(rows, [1, 4]), op.Unsqueeze(best, [2]), lowest)
    row = op.ArgMax(by_row, axis=3, keepdims=0)
    places = op.Add(op.Mul(row, axis_size(op, x, 3)), op.GatherElements(column, row, axis=2))
    some = [op.ReduceMax(op.Cast(covers, to=6), [2], keepdims=0) for covers in (rows, columns)]
    filled = op.Mul(op.Unsqueeze(some[0], [1, 3]), op.Unsqueeze(some[1], [1, 2]))
    return _Maxima(op.Reshape(places, [0, 0, -1]), op.Reshape(op.Equal(filled, 0), [0, 0, -1]))


def _region_images(op: Builder, rois: Tensor) -> Tensor:
    return op.Cast(op.Squeeze(op.Slice(rois, [0], [1], [1]), [1]), to=7)


def _max_roi_pool(
    op: Builder, x: Tensor, rois: Tensor, *, pooled_shape: list[int], spatial_scale: float
) -> Tensor:
    images = _images_of(op, x, _region_images(op, rois))
    found = _maxima(op, images, x, rois, pooled_shape, spatial_scale)
    maxima = op.GatherElements(op.Reshape(images, [0, 0, -1]), found.positions, axis=2)
    return op.Reshape(op.Where(found.empty, 0.0, maxima), [0, 0, *pooled_shape])


@register
class MaxRoiPool(Homogeneous):
    kinks = (Kink("equal maxima in a bin", "the first of them, in row-major order"),)
    inactive = _REGIONS
    torch = tensorflow = Composed(_max_roi_pool, constant=(1,))

    # Of equal maxima the first has the gradient. An empty bin is 0 and has none.
    def vjp(op, g, y, x, rois, *, pooled_shape, spatial_scale):
        def of_x():
            batch = _region_images(op, rois)
            images = _images_of(op, x, batch)
            found = _maxima(op, images, x, rois, pooled_shape, spatial_scale)
            updates = op.Where(found.empty, 0.0, op.Reshape(g, [0, 0, -1]))
            planes = zeros_like(op, op.Reshape(images, [0, 0, -1]))
            added = op.ScatterElements(planes, found.positions, updates, axis=2, reduction="add")
            return _back_to_images(op, op.Reshape(added, op.Shape(images)), x, batch)

        return of_x, None
