"""How far apart two arrays are: the numbers of a report's row."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analyzer.checks.distances import LARGEST, SMALLEST, cosine, l2, relative_l2

# Beside an array's largest element: what is smaller carries the rounding of the larger ones it was summed from.
SMALL = 1e-3
# Share of the largest sample of a batch. The difference of a smaller sample is divided by this share of the largest.
SMALL_SAMPLE = 1e-2
# Elements that are read at a time: two arrays of them lie in a processor's cache.
BLOCK = 1 << 14


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
    sums = _sums(a, b)
    if sums is None:
        return _distance_of_any(a, b)
    if not sums.furthest:
        return Distance(0.0, 0.0, 0.0, 1.0)
    cut, relative = SMALL * sums.largest, 0.0
    for x, y in _blocks(a, b):
        sizes = np.maximum(np.abs(x), np.abs(y))
        ratios = np.divide(np.abs(x - y), sizes, out=np.zeros_like(sizes), where=sizes > cut)
        relative = max(relative, float(ratios.max()))
    return Distance(sums.furthest, relative, sums.relative_l2, sums.cosine)


def relative_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The relative L2 of their `distance` alone."""
    sums = _sums(a, b)
    if sums is not None:
        return sums.relative_l2
    x, y = _comparable(a, b)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return 0.0 if np.array_equal(x, y, equal_nan=True) else np.inf
    return float(relative_l2(x[None], y[None])[0])


@dataclass
class _Sums:
    """Of two arrays, in double precision: Σ x², Σ y², Σ (x − y)², Σ xy, max |x − y| and the largest element."""

    xx: float = 0.0
    yy: float = 0.0
    dd: float = 0.0
    xy: float = 0.0
    furthest: float = 0.0
    largest: float = 0.0

    @property
    def relative_l2(self) -> float:
        return float(np.sqrt(self.dd / max(self.xx, self.yy))) if self.dd else 0.0

    @property
    def cosine(self) -> float:
        if not (self.xx and self.yy):
            return float(self.xx == self.yy)
        return float(np.clip(self.xy / np.sqrt(self.xx) / np.sqrt(self.yy), -1.0, 1.0))


def _sums(a: np.ndarray, b: np.ndarray) -> _Sums | None:
    """The sums of two arrays, in one pass; None where something is not finite or squares leave the range of numbers."""
    found = _Sums()
    for x, y in _blocks(a, b):
        with np.errstate(invalid="ignore", over="ignore"):
            apart = x - y
        found.furthest = max(found.furthest, float(np.abs(apart).max()))
        found.largest = max(found.largest, float(np.abs(x).max()), float(np.abs(y).max()))
        # Not through BLAS, which starts threads for each product. Squares may leave the range of numbers.
        found.xx += float(np.einsum("i,i", x, x))
        found.yy += float(np.einsum("i,i", y, y))
        found.dd += float(np.einsum("i,i", apart, apart))
        found.xy += float(np.einsum("i,i", x, y))
        if not np.isfinite(found.xx + found.yy + found.furthest):
            return None
    tiny = 0 < found.largest < SMALLEST or 0 < found.furthest < SMALLEST
    return None if tiny or found.largest > LARGEST else found


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The elements of two arrays, as many at a time as lie in the processor's cache, in double precision."""
    x, y = np.broadcast_arrays(a.reshape(-1), b.reshape(-1))
    for begin in range(0, len(x), BLOCK):
        part = slice(begin, begin + BLOCK)
        yield x[part].astype(np.float64), y[part].astype(np.float64)


def _distance_of_any(a: np.ndarray, b: np.ndarray) -> Distance:
    """The distance of arrays that may hold what is not finite, or whose squares leave the range of numbers."""
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
