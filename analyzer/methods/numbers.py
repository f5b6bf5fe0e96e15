"""Check the numbers that methods take, before anything runs: whole numbers, and the source of randomness."""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.errors import AnalysisError


def refuse_count(name: str, value: object, least: int, usual: int) -> None:
    """Raise AnalysisError where an option is not a whole number of at least `least`. usual: what the fix proposes."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise AnalysisError(
            f"expected {name} as a whole number of at least {least}, got {value!r}. Fix: give {name}={usual}"
        )


def generator(rng: Any) -> np.random.Generator:
    """Return a Generator, made from a seed where one is given. Raises AnalysisError for any other value."""
    try:
        return np.random.default_rng(rng)
    except (TypeError, ValueError) as error:
        raise AnalysisError(
            f"expected rng as a Generator or a whole number of at least 0, got {rng!r}. Fix: give rng=0"
        ) from error
