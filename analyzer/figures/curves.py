"""Attributions that are no image, side by side: bars of few elements, lines of many, and the difference below.

From one vector a side to the geometry of an SVG, which curves.html draws. Of more elements than are drawn, the largest
of every stretch stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, LEFT = 1040.0, 64.0
HEIGHT, GAP, LOWER, TOP = 130.0, 26.0, 56.0, 8.0
MOST_BARS, MOST_ELEMENTS = 32, 240


@dataclass(frozen=True)
class PlotShape:
    """One side's elements. path: a line, or the outlines of bars."""

    name: str
    colour: int
    path: str
    filled: bool


@dataclass(frozen=True)
class PlotAxis:
    """One of the two plots: its upper and lower edge, the line of zero, and the numbers at its edges."""

    top: float
    bottom: float
    zero: float
    high: str
    low: str


@dataclass(frozen=True)
class Curves:
    """The sides above, their difference below. elements: how many the vectors have; pooled: whether fewer are drawn."""

    sides: tuple[PlotShape, ...]
    difference: PlotShape
    values: PlotAxis
    apart: PlotAxis
    elements: int
    pooled: bool
    width: float = WIDTH
    left: float = LEFT
    height: float = TOP + HEIGHT + GAP + LOWER + TOP


def curves(sides: Mapping[str, np.ndarray], difference: tuple[str, np.ndarray], end: float) -> Curves:
    """Draw one vector a side, and a difference in percent, whose axis ends at ±`end`."""
    count = len(difference[1])
    shown = {name: _pooled(vector) for name, vector in sides.items()}
    low = min(0.0, *(float(vector.min()) for vector in shown.values()))
    high = max(0.0, *(float(vector.max()) for vector in shown.values()))
    if low == high:
        high = 1.0
    values = _axis(TOP, HEIGHT, low, high, "")
    apart = _axis(TOP + HEIGHT + GAP, LOWER, -end, end, " %")
    shapes = tuple(
        _shape(name, number, vector, (number, len(shown)), values, (low, high))
        for number, (name, vector) in enumerate(shown.items())
    )
    label, vector = difference
    below = _shape(label, 0, _pooled(vector), (0, 1), apart, (-end, end))
    return Curves(shapes, below, values, apart, count, count > MOST_ELEMENTS)


def _axis(top: float, height: float, low: float, high: float, unit: str) -> PlotAxis:
    texts = (f"{number:.2g}{unit}".replace("-", "−") for number in (high, low))
    return PlotAxis(top, top + height, top + height * high / (high - low), *texts)


def _pooled(vector: np.ndarray) -> np.ndarray:
    """At most MOST_ELEMENTS: of every stretch the element of the greatest size, with its sign."""
    if len(vector) <= MOST_ELEMENTS:
        return vector
    stretches = np.array_split(vector, MOST_ELEMENTS)
    return np.array([stretch[np.abs(stretch).argmax()] for stretch in stretches])


def _shape(
    name: str,
    colour: int,
    vector: np.ndarray,
    place: tuple[int, int],
    axis: PlotAxis,
    ends: tuple[float, float],
) -> PlotShape:
    """place: (number, count) of the sides that share the room of an element."""
    low, high = ends
    heights = axis.bottom - (np.clip(vector, low, high) - low) / (high - low) * (axis.bottom - axis.top)
    step = (WIDTH - LEFT) / len(vector)
    if len(vector) > MOST_BARS:
        path = " ".join(
            f"{'L' if index else 'M'}{LEFT + (index + 0.5) * step:.1f} {y:.1f}"
            for index, y in enumerate(heights)
        )
        return PlotShape(name, colour, path, False)
    return PlotShape(name, colour, _bars(heights, step, place, axis.zero), True)


def _bars(heights: Sequence[float] | np.ndarray, step: float, place: tuple[int, int], zero: float) -> str:
    number, count = place
    width = 0.8 * step / count
    lefts = (LEFT + index * step + 0.1 * step + number * width for index in range(len(heights)))
    return " ".join(
        f"M{x:.1f} {zero:.1f}V{y:.1f}H{x + 0.92 * width:.1f}V{zero:.1f}Z"
        for x, y in zip(lefts, heights, strict=True)
    )
