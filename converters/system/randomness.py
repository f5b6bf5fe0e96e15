"""Seeds of randomness, from what users give: a whole number, or a Generator."""

from __future__ import annotations

from typing import Any

import numpy as np


def seed_from(rng: Any, error: type[Exception]) -> int:
    """Return a seed: itself, or one that a Generator draws. Raises `error` for any other value."""
    if isinstance(rng, np.random.Generator):
        return int(rng.integers(2**63))
    if isinstance(rng, bool) or not isinstance(rng, (int, np.integer)) or rng < 0:
        raise error(
            f"expected rng as a Generator or a whole number of at least 0, got {rng!r}. Fix: give rng=0"
        )
    return int(rng)
