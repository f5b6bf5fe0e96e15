"""How far apart two arrays are: the numbers of a report's row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Distance:
    """max_abs in the arrays' units; relative_l2 = ‖a − b‖ / max(‖a‖, ‖b‖); cosine of the angle between them."""

    max_abs: float
    relative_l2: float
    cosine: float


def distance(a: np.ndarray, b: np.ndarray) -> Distance:
    """Compare two arrays of one shape, in double precision. Two zero arrays are equal."""
    x, y = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        equal = bool(np.array_equal(x, y, equal_nan=True))
        return Distance(0.0, 0.0, 1.0) if equal else Distance(np.inf, np.inf, 0.0)
    if not x.size:
        return Distance(0.0, 0.0, 1.0)
    # Scaling first keeps the squares of very small or large numbers in range.
    scale = max(np.abs(x).max(), np.abs(y).max())
    if scale == 0:
        return Distance(0.0, 0.0, 1.0)
    difference = x - y
    norm_x, norm_y = np.linalg.norm(x / scale), np.linalg.norm(y / scale)
    relative = np.linalg.norm(difference / scale) / max(norm_x, norm_y)
    cosine = float(np.dot(x / scale, y / scale) / (norm_x * norm_y)) if norm_x and norm_y else 0.0
    return Distance(float(np.abs(difference).max()), float(relative), min(1.0, max(-1.0, cosine)))
