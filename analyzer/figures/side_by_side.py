"""Attributions of several sides beside one another, with the difference of the two that are furthest apart.

From kept attributions (`analyzer.checks` keeps them) to pictures of images and curves of other inputs. The sides share
one scale. A difference is shown in percent of the largest attribution, and its colours end at the tolerance or beyond:
what is allowed stays pale, what is not cannot be missed. What is not finite is told, not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from analyzer.figures.curves import Curves, curves
from analyzer.figures.heat import PIXELS, Scale, encode_png, enlarged, overlay, smoothed, value_range
from analyzer.figures.images import photographs, to_planes
from analyzer.figures.picture import Picture
from converters.model import Preprocessing
from converters.types import NamedArrays

# A picture stands in a column of the page; more pixels than these would not be seen.
MOST_PIXELS = 256


class Kept(Protocol):
    """The attributions of K samples; see `analyzer.checks.read.attributions`."""

    @property
    def samples(self) -> Sequence[int]:
        """Their positions in the batch."""

    @property
    def inputs(self) -> NamedArrays:
        """{tensor: (K, …)}."""

    @property
    def maps(self) -> Mapping[str, NamedArrays]:
        """{side: {tensor: (K, *spatial)}}."""

    @property
    def integrated(self) -> Mapping[str, NamedArrays]:
        """{side: {tensor: (K, …)}}."""

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How a photograph became the input."""


@dataclass(frozen=True)
class Strip:
    """One method of one input: a picture a side and the difference's, or curves, or a note why there is neither."""

    method: str
    pictures: tuple[Picture, ...] = ()
    curves: Curves | None = None
    note: str = ""


@dataclass(frozen=True)
class SideBySide:
    """One sample: the photographs of its inputs that are images, and a strip for each method and input."""

    name: str
    photographs: tuple[Picture, ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class _Planes:
    """One method of one input of one sample on every side. tolerance: of relative L2, in percent."""

    method: str
    sides: NamedArrays
    signed: bool
    tolerance: float


def side_by_side(kept: Kept, tolerances: Mapping[str, float]) -> list[SideBySide]:
    """Every kept sample. tolerances: of "full grad" and "integrated gradients"."""
    ground = {name: photographs(array, kept.preprocessing) for name, array in kept.inputs.items()}
    found = []
    for index, sample in enumerate(kept.samples):
        shown = {name: pixels[index] for name, pixels in ground.items() if pixels is not None}
        several = len(shown) > 1
        pictures = [
            Picture(f"Input {name}" if several else "Input", _png(pixels)) for name, pixels in shown.items()
        ]
        strips = [
            strip
            for name in _tensors(kept)
            for strip in _strips(kept, name, index, shown.get(name), tolerances)
        ]
        found.append(SideBySide(f"Sample {sample}", tuple(pictures), tuple(strips)))
    return found


def _tensors(kept: Kept) -> list[str]:
    return list(next(iter(kept.maps.values())))


def _strips(
    kept: Kept, name: str, index: int, photograph: np.ndarray | None, tolerances: Mapping[str, float]
) -> list[Strip]:
    suffix = f", {name}" if len(_tensors(kept)) > 1 else ""
    strips = []
    for method, by_side, signed in (
        ("FullGrad", kept.maps, False),
        ("Integrated Gradients", kept.integrated, True),
    ):
        mine = {side: arrays[name][index] for side, arrays in by_side.items() if name in arrays}
        if len(mine) < 2:
            continue
        quantity = "integrated gradients" if signed else "full grad"
        planes = _Planes(method + suffix, mine, signed, 100 * tolerances.get(quantity, 0.0))
        strips.append(_strip(planes, photograph, kept.preprocessing))
    return strips


def _strip(planes: _Planes, photograph: np.ndarray | None, preprocessing: Preprocessing | None) -> Strip:
    strange = [side for side, array in planes.sides.items() if not np.isfinite(array).all()]
    if strange:
        return Strip(planes.method, note=f"not drawn: not finite on {', '.join(strange)}")
    layout = preprocessing.layout if preprocessing else None
    if photograph is not None:
        flat = {side: _plane(array, layout) for side, array in planes.sides.items()}
        if all(plane is not None for plane in flat.values()):
            drawn = {side: plane for side, plane in flat.items() if plane is not None}
            return Strip(planes.method, tuple(_pictures(planes, drawn, photograph)))
    vectors = {side: array.reshape(-1).astype(np.float64) for side, array in planes.sides.items()}
    label, apart = _difference(vectors)
    end = max(float(np.abs(apart).max()), planes.tolerance) or 1.0
    return Strip(planes.method, curves=curves(vectors, (label, apart), end))


def _plane(array: np.ndarray, layout: str | None) -> np.ndarray | None:
    """One sample's attributions of an image as (H, W): a map as it is, input attributions summed over channels."""
    if array.ndim == 2:
        return array.astype(np.float64)
    planes = to_planes(array[None].astype(np.float64), layout)
    return None if planes is None else smoothed(planes[0], PIXELS)


def _pictures(planes: _Planes, drawn: NamedArrays, photograph: np.ndarray) -> list[Picture]:
    ranges = [value_range(plane, signed=planes.signed) for plane in drawn.values()]
    scale = Scale(min(low for low, _ in ranges), max(high for _, high in ranges), planes.signed)
    pictures = [
        Picture(side, _png(overlay(photograph, plane, scale=scale)), scale=scale)
        for side, plane in drawn.items()
    ]
    label, apart = _difference(drawn)
    # Like the maps: a few extreme pixels do not decide the range.
    end = max(value_range(apart, signed=True)[1], planes.tolerance) or 1.0
    percent = Scale(-end, end, True, "%")
    return [*pictures, Picture(label, _png(overlay(photograph, apart, scale=percent)), scale=percent)]


def _difference(drawn: NamedArrays) -> tuple[str, np.ndarray]:
    """Of the two sides furthest apart: what it is called, and the difference in percent of the largest."""
    a, b = max(combinations(drawn, 2), key=lambda pair: float(np.abs(drawn[pair[0]] - drawn[pair[1]]).max()))
    largest = max(float(np.abs(array).max()) for array in drawn.values()) or 1.0
    apart = 100 * (drawn[a] - drawn[b]) / largest
    return f"{a} − {b}", apart


def _png(pixels: np.ndarray) -> bytes:
    step = -(-max(pixels.shape[:2]) // MOST_PIXELS)
    return encode_png(enlarged(pixels[::step, ::step]))
