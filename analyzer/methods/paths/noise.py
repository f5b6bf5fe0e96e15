"""Noisy copies of inputs, each drawn from a stream of its own: no copy depends on which others are drawn beside it.

From feeds and a seed to feeds with Gaussian noise by the range of each sample; integers stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.errors import AnalysisError
from analyzer.types import Arrays


@dataclass(frozen=True)
class Noise:
    """share: the standard deviation of the noise as a share of the range (maximum − minimum) of each sample."""

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.share, (int, float, np.number)) or not self.share >= 0:
            raise AnalysisError(
                f"expected noise of at least 0, got {self.share!r}. Fix: give a share of the inputs' range, noise=0.15"
            )

    def noisy(self, feeds: Arrays, names: Sequence[str], rows: np.ndarray, copies: np.ndarray) -> Arrays:
        """Copy `copies`[k] of sample `rows`[k] of each tensor in `names`, (n, *features)."""
        streams = [
            np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(int(row), int(copy))))
            for row, copy in zip(rows, copies, strict=True)
        ]
        found = {}
        for name in names:
            clean = feeds[name][rows]
            spread = self.spread(clean)
            draws = np.stack([stream.standard_normal(clean.shape[1:]) for stream in streams])
            noisy: np.ndarray = clean + spread * draws
            found[name] = noisy.astype(clean.dtype)
        return found

    def spread(self, clean: np.ndarray) -> np.ndarray:
        """The standard deviation of the noise of samples (n, *features), (n, 1, …)."""
        axes = tuple(range(1, clean.ndim))
        found: np.ndarray = self.share * (
            clean.max(axis=axes, keepdims=True) - clean.min(axis=axes, keepdims=True)
        )
        return found
