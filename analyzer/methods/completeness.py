"""Completeness: how far an attribution's sum is from what it must sum to. Always computed, never hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analyzer.graph.precision import epsilon


@dataclass(frozen=True)
class Completeness:
    """How far a sum is from what it must be, for each sample.

    output (N,): what the attribution must sum to. total (N,): its sum. floor (N,): the rounding floor of that
    sum, in the output's units. error (N,): |total − output| relative to |output|, or to the floor where that is
    larger.
    """

    output: np.ndarray
    total: np.ndarray
    error: np.ndarray
    floor: np.ndarray

    def within(self, tolerance: float) -> np.ndarray:
        """(N,) bool: whether the shortfall is within this share of the output, or below the rounding floor."""
        limit = np.maximum(tolerance * np.abs(self.output), self.floor)
        met: np.ndarray = np.abs(self.total - self.output) <= limit
        return met


def measure(
    output: np.ndarray, total: np.ndarray, absolute: np.ndarray, rounding: np.ndarray | float = 0.0
) -> Completeness:
    """Compare a sum with what it must be.

    output, total, absolute: (N,), the last the sum of the terms' absolute values. rounding: that of `output` itself, as
    where it is the difference of two large numbers. The error is relative to
    |output|, or to the rounding floor of the sum (the dtype's ε times `absolute`) where that is larger: an
    output near zero cannot be met more exactly than its terms are rounded.
    """
    floor = epsilon(output.dtype) * absolute + rounding
    scale = np.maximum(np.maximum(np.abs(output), floor), np.finfo(np.float64).tiny)
    return Completeness(output, total, np.abs(total - output) / scale, floor)


def sample_sums(array: np.ndarray) -> np.ndarray:
    """The sum of each sample, (N,), in double precision."""
    sums: np.ndarray = array.reshape(array.shape[0], -1).sum(axis=1, dtype=np.float64)
    return sums
