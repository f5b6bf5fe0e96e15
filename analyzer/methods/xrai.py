"""XRAI: the regions of an image in the order of their attributions.

The image is cut into overlapping segments at several scales; region by region, the one whose pixels not yet taken have
the highest mean attribution is added. From a Differentiable and images to maps of these means and the regions' ranks.
Attributions are Integrated Gradients, the mean over a black and a white baseline, unless others are given. Refuses
what is no batch of 2-D images, and models with several inputs, of which it cannot be told which is the image.
Source: Kapishnikov, Bolukbasi, Viégas & Terry 2019, "XRAI: Better Attributions Through Regions", and the authors'
code for what the paper leaves open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.errors import AnalysisError, ShapeError
from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.methods.exporting import Hosted
from analyzer.methods.integrated_gradients import integrated_gradients
from analyzer.methods.numbers import refuse_count
from analyzer.methods.paths.baselines import BaselineLike, numbers
from analyzer.methods.registry import method
from analyzer.methods.result import Attribution
from analyzer.methods.segments import segments as segments_of
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Progress, Rng

if TYPE_CHECKING:
    from analyzer.figures.plots import Look


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Xrai(Attribution):
    """The result of `xrai`.

    maps: (N, H, W), at every pixel the mean attribution of its region; it sums to that of `attributions`, taken at the
        largest channel of each pixel.
    ranks: (N, H, W), the number of each pixel's region, 1 the highest.
    attribution_error: (N,), how far the sum of the attributions is from the difference of the outputs; None of
        attributions that were given.
    """

    ranks: np.ndarray
    attribution_error: np.ndarray | None

    @cached_property
    def delta(self) -> np.ndarray | None:
        """(N,): how far the sum of `attributions` is from the difference of the outputs; None where they were given."""
        return self.attribution_error

    @property
    def detail(self) -> str:
        """The number of regions of each sample."""
        return f"{', '.join(str(count) for count in self.ranks.max(axis=(1, 2)))} regions"

    def masks(self, sample: int) -> np.ndarray:
        """The regions of a sample (K, H, W), disjoint, the highest first."""
        ranks = self.ranks[sample]
        disjoint: np.ndarray = ranks == np.arange(1, ranks.max() + 1)[:, None, None]
        return disjoint

    def top(self, share: float) -> np.ndarray:
        """(N, H, W) bool: the highest regions, as many as cover this share of the image. Raises AnalysisError."""
        if not 0 < share <= 1:
            raise AnalysisError(
                f"expected a share of the image above 0 and at most 1, got {share}. Fix: give one such as 0.1"
            )
        covered = np.zeros(self.ranks.shape, bool)
        for sample, ranks in enumerate(self.ranks):
            counts = np.bincount(ranks.ravel())[1:]
            taken = int(np.searchsorted(np.cumsum(counts), share * ranks.size)) + 1
            covered[sample] = ranks <= taken
        return covered

    def drawn(self, name: str, **how: Any) -> tuple[np.ndarray, Look]:
        """Return the map of the regions, in the unit of the attributions."""
        values, look = super().drawn(name, **how)
        return values, replace(look, unit="mean attribution of the region")


@method(
    "xrai",
    export=Hosted(
        "it segments the image and ranks the segments",
        "export integrated-gradients, and sum its map over segments",
    ),
    line="which regions of an image matter most",
    caption="XRAI",
    note="the mean of Integrated Gradients in each region",
    source="Kapishnikov et al. 2019",
    cost="{steps} gradients (steps), and regions",
)
def xrai(
    model: Differentiable | ModelLike,
    inputs: np.ndarray | Mapping[str, np.ndarray],
    target: TargetLike = None,
    *,
    attributions: np.ndarray | None = None,
    segments: Sequence[np.ndarray] | None = None,
    baseline: BaselineLike = ("black", "white"),
    steps: int = 100,
    min_pixels: int = 50,
    rng: Rng = 0,
    batch_size: int | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> Xrai:
    """Rank the regions of images by the attributions in them.

    inputs: (N, channels, H, W), or channels last.
    target: see `Target`; None explains the class that is highest.
    attributions: like the inputs, of any method; None takes Integrated Gradients.
    segments: for each sample its regions as masks (K, H, W), which may overlap; None cuts the images themselves.
    baseline: of Integrated Gradients, as `integrated_gradients` takes it; attributions are averaged over several.
    steps: of Integrated Gradients, from each baseline.
    min_pixels: a segment that adds fewer pixels is left out.
    rng: a Generator or a seed for random baselines.
    batch_size, progress: of Integrated Gradients.
    Raises ShapeError for what is no batch of images, AnalysisError for a model of several inputs, MissingFramework
    where scikit-image is needed and not installed; InputError, TargetError, UnsupportedOp.
    """
    refuse_count("min_pixels", min_pixels, 1, 50)
    bound = differentiate(model, verify=verify).bind(inputs, target)
    fn, feeds = bound.fn, bound.feeds
    name, channel = _image_input(fn, feeds)
    images = np.moveaxis(feeds[name], channel, -1)
    explained = bound.gradients(())
    delta = None
    if attributions is None:
        integrated = integrated_gradients(
            fn,
            feeds,
            target,
            baseline=baseline,
            steps=steps,
            rng=rng,
            batch_size=batch_size,
            progress=progress,
        )
        attributions, delta = integrated.attributions_at(name), integrated.delta
    given = numbers(attributions, "the attributions").astype(feeds[name].dtype)
    if given.shape != feeds[name].shape:
        raise ShapeError(
            f"attributions of shape {given.shape} for images {feeds[name].shape}. Fix: give them in the images' shape"
        )
    # The largest channel, as published: a pixel speaks where any of its channels does.
    pixels = np.moveaxis(given, channel, -1).max(axis=-1).astype(np.float64)
    regions = (
        [segments_of(image) for image in images] if segments is None else _checked(segments, pixels.shape)
    )
    ranked = [rank(masks, values, min_pixels) for masks, values in zip(regions, pixels, strict=True)]
    return Xrai(
        attributions=given,
        maps=np.stack([values for values, _ in ranked]).astype(given.dtype),
        ranks=np.stack([ranks for _, ranks in ranked]),
        attribution_error=delta,
        output=explained.output,
        target=explained.target,
        signed=False,
        wrt=(name,),
    )


def rank(masks: np.ndarray, attributions: np.ndarray, min_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Add region after region, that of the highest mean over its pixels not yet taken first. masks: (K, H, W).

    Returns the map of these means and the ranks by them, (H, W). Pixels that no segment took come last, together.
    Sums and areas of what is left of each segment are kept, and only what a region takes is subtracted from them: every
    pixel is visited once for all segments, not once for every two of them.
    """
    values, flat = attributions.ravel(), masks.reshape(len(masks), -1)
    areas = flat.sum(axis=1)
    sums = np.array([values[mask].sum() for mask in flat])
    free = np.ones(values.size, bool)
    regions = []
    while (left := np.flatnonzero(areas >= min_pixels)).size:
        best = left[(sums[left] / areas[left]).argmax()]
        taken = np.flatnonzero(free & flat[best])
        free[taken] = False
        attributed = values[taken]
        for k in left:
            shared = flat[k, taken]
            areas[k] -= np.count_nonzero(shared)
            sums[k] -= attributed[shared].sum()
        regions.append((attributed.mean(), taken))
    regions.sort(key=lambda region: -region[0])
    if free.any():
        regions.append((values[free].mean(), np.flatnonzero(free)))
    means_at, ranks = np.empty(values.size), np.empty(values.size, int)
    for number, (mean, taken) in enumerate(regions, start=1):
        means_at[taken], ranks[taken] = mean, number
    return means_at.reshape(attributions.shape), ranks.reshape(attributions.shape)


def _image_input(fn: Differentiable, feeds: Arrays) -> tuple[str, int]:
    """The only attributed input and its channel axis. Raises AnalysisError or ShapeError where it is no image."""
    names = fn.roots()
    if len(names) > 1:
        raise AnalysisError(
            f"XRAI cuts one image into regions; the model has the inputs {', '.join(names)}. Fix: use "
            "integrated_gradients"
        )
    if feeds[names[0]].ndim != 4:
        raise ShapeError(
            f"XRAI takes images of two spatial axes and channels, got {feeds[names[0]].shape}. Fix: use "
            "integrated_gradients"
        )
    return names[0], input_channel_axis(fn.graph, names[0], channel_axes(fn.graph))


def _checked(segments: Sequence[np.ndarray], shape: tuple[int, ...]) -> list[np.ndarray]:
    """The masks of every sample as (K, H, W) bool. shape: (N, H, W)."""
    masks = [np.asarray(one).astype(bool) for one in segments]
    if len(masks) != shape[0] or any(one.ndim != 3 or one.shape[1:] != shape[1:] for one in masks):
        shapes = ", ".join(str(one.shape) for one in masks)
        raise ShapeError(
            f"segments of shapes {shapes} for {shape[0]} samples. Fix: give for each of these K masks, an array "
            f"(K, {shape[1]}, {shape[2]})"
        )
    return masks
