"""Norms and distances of maps and attributions, one number a sample.

From two arrays (N, …) of one shape to (N,), in double precision. Two equal samples are at distance 0 and of similarity
1, constant and zero ones too. Refuses arrays of different shapes; what is not finite gives NaN.
"""

from __future__ import annotations

import numpy as np

from analyzer.errors import ShapeError

TOP_SHARE = 0.1
# Of the Gaussian window, as Wang et al. have them: 11 pixels wide.
SIGMA, RADIUS = 1.5, 5
STABILIZERS = (0.01, 0.03)
# Between these, the squares of numbers stay in range.
SMALLEST, LARGEST = 1e-100, 1e100


def l1(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """Σ |a − b|; without b the norm of a."""
    sums: np.ndarray = np.abs(_difference(a, b)).sum(axis=1)
    return sums


def l2(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """√Σ (a − b)²; without b the norm of a."""
    return _norms(_difference(a, b))


def l_infinity(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
    """max |a − b|; without b the norm of a."""
    largest: np.ndarray = np.abs(_difference(a, b)).max(axis=1, initial=0.0)
    return largest


def relative_l2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """‖a − b‖ / max(‖a‖, ‖b‖): symmetric, 0 for two zeros, at most 2."""
    x, y = _flat(a, b)
    return _ratio(_norms(x - y), np.maximum(_norms(x), _norms(y)), where_zero=0.0)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The cosine of the angle between them; 1 for two zeros, 0 beside one."""
    x, y = (_tamed(rows)[0] for rows in _flat(a, b))
    lengths = [_norms(rows) for rows in (x, y)]
    cosines = np.clip(_ratio(_products(x, y), lengths[0] * lengths[1], where_zero=0.0), -1.0, 1.0)
    return np.where(lengths[0] + lengths[1] == 0, 1.0, cosines)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman's ρ; equal elements share their mean rank. Of a constant sample 1 beside a constant one, else 0."""
    x, y = (np.stack([_ranks(row) for row in rows]) for rows in _flat(a, b))
    return cosine(x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True))


def top_overlap(a: np.ndarray, b: np.ndarray, share: float = TOP_SHARE) -> np.ndarray:
    """Of the largest elements by size, that share of all and at least one, how many are among the other's, in [0, 1].

    Elements that tie at the cut count in equal parts.
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"expected a share of the elements above 0 and at most 1, got {share}. Fix: give one such as 0.01"
        )
    x, y = _flat(a, b)
    count = max(1, round(share * x.shape[1]))
    chosen = [np.stack([_top(np.abs(row), count) for row in rows]) for rows in (x, y)]
    shares: np.ndarray = np.minimum(*chosen).sum(axis=1) / count
    return shares


def ssim(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Structural similarity of maps (N, *spatial), in [−1, 1]: the mean over all places of a Gaussian window.

    The window is 11 wide with σ = 1.5, or the widest odd one that fits; the range is that of both maps of a sample.
    Source: Wang, Bovik, Sheikh & Simoncelli 2004, "Image Quality Assessment", eq. 13 to 17.
    """
    _flat(a, b)
    x, y = a.astype(np.float64), b.astype(np.float64)
    axes = tuple(range(1, x.ndim))
    high, low = np.maximum(x, y).max(axis=axes), np.minimum(x, y).min(axis=axes)
    extent = np.where(high > low, high - low, 1.0).reshape(-1, *(1,) * len(axes))
    # The index is the same in any unit, but for its stabilizers, which are shares of the range.
    x, y = x / extent, y / extent
    c1, c2 = (k**2 for k in STABILIZERS)
    mean_x, mean_y = _windowed(x), _windowed(y)
    variances = _windowed(x * x) - mean_x**2 + _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    similarity: np.ndarray = (luminance * (2 * covariance + c2) / (variances + c2)).mean(axis=axes)
    return similarity


def _flat(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as (N, elements), in double precision. Raises ShapeError."""
    if a.shape != b.shape or not a.ndim:
        raise ShapeError(
            f"arrays of shapes {a.shape} and {b.shape} are compared sample by sample. Fix: give two arrays of one "
            "shape (N, …)"
        )
    x, y = (array.reshape(len(array), -1).astype(np.float64, copy=False) for array in (a, b))
    return x, y


def _difference(a: np.ndarray, b: np.ndarray | None) -> np.ndarray:
    x, y = _flat(a, np.zeros_like(a) if b is None else b)
    difference: np.ndarray = x - y
    return difference


def _norms(rows: np.ndarray) -> np.ndarray:
    """The L2 norm of each row, also where squares leave the range of numbers."""
    tamed, scale = _tamed(rows)
    norms: np.ndarray = scale * np.sqrt(_products(tamed, tamed))
    return norms


def _products(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The inner product of each row of one with the same row of the other.

    Not through BLAS: it starts threads for each product, which takes longer than the product on a busy processor.
    """
    products: np.ndarray = np.einsum("ni,ni->n", x, y, optimize=False)
    return products


def _tamed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows over a scale each, so that their squares stay in range; the scale is 1 where they are."""
    largest = np.maximum(rows.max(axis=1, initial=0.0), -rows.min(axis=1, initial=0.0))
    extreme = (largest > LARGEST) | ((largest > 0) & (largest < SMALLEST))
    scale = np.where(extreme, largest, 1.0)
    return (rows / scale[:, None] if extreme.any() else rows), scale


def _ratio(numerator: np.ndarray, denominator: np.ndarray, where_zero: float) -> np.ndarray:
    zero = denominator == 0
    return np.where(zero, where_zero, numerator / np.where(zero, 1.0, denominator))


def _ranks(row: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
    means: np.ndarray = np.cumsum(counts) - (counts - 1) / 2
    return means[inverse.reshape(-1)]


def _top(sizes: np.ndarray, count: int) -> np.ndarray:
    """How much of each element is among the `count` largest: 1, 0, or at the cut an equal part."""
    cut = np.partition(sizes, -count)[-count]
    above, at = sizes > cut, sizes == cut
    parts: np.ndarray = above + at * ((count - above.sum()) / at.sum())
    return parts


def _windowed(maps: np.ndarray) -> np.ndarray:
    """The mean under the window wherever it lies within the map."""
    for axis in range(1, maps.ndim):
        radius = min(RADIUS, (maps.shape[axis] - 1) // 2)
        kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SIGMA) ** 2)
        windows = np.lib.stride_tricks.sliding_window_view(maps, len(kernel), axis=axis)
        maps = windows @ (kernel / kernel.sum())
    return maps
