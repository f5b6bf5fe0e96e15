"""The L2 norm of an array.

`np.linalg.norm` goes through BLAS, which starts threads for each product. On a busy processor that takes many times
longer than the product.
"""

from __future__ import annotations

import numpy as np


def norm(array: np.ndarray) -> float:
    """Return √Σ x² over all elements, computed in the array's own precision."""
    flat = array.reshape(-1)
    return float(np.sqrt(np.einsum("i,i->", flat, flat, optimize=False)))
