"""Draw what can be drawn of values that are not all finite, and say how many are not.

A gradient may be infinite, as that of a square root at 0; its picture must neither fail nor hide it.
"""

from __future__ import annotations

import numpy as np


def drawable(values: np.ndarray, title: str) -> tuple[np.ndarray, str]:
    """Return the values with 0 in the place of NaN and infinities, and the title with the number of these."""
    lost = ~np.isfinite(values)
    if not lost.any():
        return values, title
    note = f"{int(lost.sum())} of {values.size} values are NaN or infinite, drawn as 0"
    return np.where(lost, 0, values), f"{title}: {note}" if title else note
