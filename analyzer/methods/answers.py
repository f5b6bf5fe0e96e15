"""What a reader asks first, in words: what the model said about a sample, and where a method finds the reasons.

From predictions and the map of a sample to a sentence. Says nothing of maps that are not finite or all zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyzer.figures.heat import smoothed
from analyzer.methods.result import Attribution
from analyzer.report.page import Prediction

ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
HALF = 0.5
STRONGEST, APART = 0.05, 0.22
"""The share of an image that counts as its strongest part, and the spread, as a share of a side, of several places."""
NARROW = 0.25
"""The share of an image below which it is said that half of a map lies on it."""


def answer(
    results: Sequence[Attribution], index: int, predicted: Sequence[Prediction], explained: str
) -> str:
    """Return what the model said of one sample and where it looked, by the first method that has a map.

    explained: the target of the sample in words, said where it is not the highest class.
    """
    said = []
    if predicted:
        first = predicted[0]
        share = "" if first.probability is None else f", {100 * first.probability:.3g} %"
        said.append(f"The model says {first.name}{share}.")
        if results[0].target is not None and int(np.ravel(results[0].target[index])[0]) != first.index:
            said.append(f"Explained is {explained}.")
    places = (place(result, index) for result in results)
    return " ".join([*said, *[found for found in places if found][:1]])


def place(result: Attribution, index: int) -> str:
    """Return a sentence on where the map of one sample has its mass; "" where it has none."""
    maps = result.by_tensor(result.maps) or result.by_tensor(result.attributions)
    if len(maps) != 1:
        return ""
    (values,) = maps.values()
    values = np.asarray(values[index], np.float64)
    if values.ndim == 3 and len(result.channel_axes) == 1:
        (axis,) = result.channel_axes.values()
        values = values.sum(axis=axis - 1)
    tokens = bool(getattr(result, "embedded", ()))
    if tokens:
        values = values.reshape(len(values), -1).sum(axis=1)
    # What speaks against the target is no reason for it.
    values = np.maximum(values, 0.0) if result.signed else np.abs(values)
    if not np.isfinite(values).all() or not values.any():
        return ""
    if values.ndim == 2 and min(values.shape) > 1:
        return _of_image(values, result.caption)
    if values.ndim == 1 and values.size > 1:
        return _of_row(values, result.caption, "token" if tokens else "element")
    return ""


def half(values: np.ndarray) -> np.ndarray:
    """Return where the largest values lie that together make half of the sum: a mask."""
    order = np.argsort(-values, axis=None)
    sums = np.cumsum(values.ravel()[order])
    taken = int(np.searchsorted(sums, HALF * sums[-1])) + 1
    mask = np.zeros(values.size, bool)
    mask[order[:taken]] = True
    return mask.reshape(values.shape)


def _of_image(values: np.ndarray, method: str) -> str:
    region = smoothed(values)
    mask = region >= np.quantile(region, 1 - STRONGEST)
    weights = np.where(mask, region, 0.0)
    weights /= weights.sum()
    centre, spread = [], []
    for axis, size in enumerate(values.shape):
        at = (np.arange(size) + 0.5) / size
        along = weights.sum(axis=1 - axis)
        centre.append(float(along @ at))
        spread.append(float(np.sqrt(along @ (at - along @ at) ** 2)))
    row, column = ROWS[min(int(3 * centre[0]), 2)], COLUMNS[min(int(3 * centre[1]), 2)]
    if max(spread) > APART:
        where = "in several places"
    else:
        where = "in the middle" if (row, column) == ("middle", "centre") else f"at the {row} {column}"
    share = half(values).mean()
    much = f"; half of its map lies on {100 * share:.2g} % of the image" if share < NARROW else ""
    return f"{method} is strongest {where}{much}."


def _of_row(values: np.ndarray, method: str, part: str) -> str:
    places = np.flatnonzero(half(values))
    much = f"; half of it lies on {len(places)} of {values.size} {part}s" if len(places) > 1 else ""
    return f"{method} is strongest at {part} {int(values.argmax())} of {values.size}{much}."
