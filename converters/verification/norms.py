"""The L2 norm of an array, and the inner product of two.

`np.linalg.norm` of a vector and `np.vdot` go through BLAS, which starts threads for each product. On a busy processor
that takes many times longer than the product.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 20


def norm(array: np.ndarray) -> float:
    """Return √Σ x² over all elements, computed in the array's own precision."""
    flat = array.reshape(-1)
    return float(np.sqrt(np.einsum("i,i->", flat, flat, optimize=False)))


def inner(a: np.ndarray, b: np.ndarray) -> float:
    """Return Σ a·b over all elements of two real arrays of one shape, computed in their own precision."""
    return float(np.einsum("i,i->", a.reshape(-1), b.reshape(-1), optimize=False))


def in_blocks(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield parts of arrays of one shape, in double precision: copies of whole outputs may not fit in memory."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, _BLOCK):
        yield tuple(part[start : start + _BLOCK].astype(np.float64) for part in flat)


def largest_difference(value: np.ndarray, expected: np.ndarray) -> tuple[int, float]:
    """Return how many elements of `expected` are finite, and the largest difference in one of them."""
    count, largest = 0, 0.0
    for v, e in in_blocks(value, expected):
        finite = np.isfinite(e)
        count += int(finite.sum())
        largest = max(largest, float(np.abs(v[finite] - e[finite]).max(initial=0.0)))
    return count, largest
