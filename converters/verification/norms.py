"""The L2 norm of an array, and the inner product of two.

`np.linalg.norm` of a vector and `np.vdot` go through BLAS, which starts threads for each product. On a busy processor
that takes many times longer than the product.
"""

from __future__ import annotations

import numpy as np


def norm(array: np.ndarray) -> float:
    """Return √Σ x² over all elements, computed in the array's own precision."""
    flat = array.reshape(-1)
    return float(np.sqrt(np.einsum("i,i->", flat, flat, optimize=False)))


def inner(a: np.ndarray, b: np.ndarray) -> float:
    """Return Σ a·b over all elements of two real arrays of one shape, computed in their own precision."""
    return float(np.einsum("i,i->", a.reshape(-1), b.reshape(-1), optimize=False))
