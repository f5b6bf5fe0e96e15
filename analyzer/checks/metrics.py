"""How far apart two arrays are: the numbers of a report's row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analyzer.checks.distances import cosine, l2, relative_l2

# Beside an array's largest element: what is smaller carries the rounding of the larger ones it was summed from.
SMALL = 1e-3
# Share of the largest sample of a batch. The difference of a smaller sample is divided by this share of the largest.
SMALL_SAMPLE = 1e-2


@dataclass(frozen=True)
class Distance:
    """max_abs in the arrays' units; max_relative = max |a − b| / max(|a|, |b|) over the elements that are not SMALL;
    relative_l2 = ‖a − b‖ / max(‖a‖, ‖b‖), in the rows of attributions that of the worst sample (worst_sample); cosine
    of the angle between them.
    """

    max_abs: float
    max_relative: float
    relative_l2: float
    cosine: float


def distance(a: np.ndarray, b: np.ndarray) -> Distance:
    """Compare two arrays of one shape, in double precision. Two zero arrays are equal, and so is ∞ to itself."""
    x, y = _comparable(a, b)
    difference = x - y
    furthest = float(np.abs(difference).max(initial=0.0))
    if furthest == 0:
        return Distance(0.0, 0.0, 0.0, 1.0)
    if not np.isfinite(furthest):
        equal = np.array_equal(x, y, equal_nan=True)
        return Distance(0.0, 0.0, 0.0, 1.0) if equal else Distance(np.inf, np.inf, np.inf, 0.0)
    sizes = np.maximum(np.abs(x), np.abs(y))
    large = sizes > SMALL * sizes.max()
    relative = float((np.abs(difference[large]) / sizes[large]).max())
    return Distance(
        furthest, relative, float(relative_l2(x[None], y[None])[0]), float(cosine(x[None], y[None])[0])
    )


def relative_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The relative L2 of their `distance` alone."""
    x, y = _comparable(a, b)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return 0.0 if np.array_equal(x, y, equal_nan=True) else np.inf
    return float(relative_l2(x[None], y[None])[0])


def worst_sample(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest relative L2 of any sample (N, …), in which a wrong small one does not hide behind a large one.

    A sample that is smaller than SMALL_SAMPLE of the largest is compared with that: its rounding may be theirs.
    """
    if not a.ndim or len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return relative_distance(a, b)
    x, y = (array.reshape(len(array), -1).astype(np.float64) for array in (a, b))
    sizes = np.maximum(l2(x), l2(y))
    scale = np.maximum(sizes, SMALL_SAMPLE * sizes.max())
    return float(np.divide(l2(x, y), scale, out=np.zeros(len(x)), where=scale > 0).max())


def _comparable(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 vectors, without the elements that are the same infinity in both: the mask of an attention."""
    x, y = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    infinite = np.isinf(x)
    if infinite.any():
        differs = ~(infinite & (x == y))
        x, y = x[differs], y[differs]
    return x, y
