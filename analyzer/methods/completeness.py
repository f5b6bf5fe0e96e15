"""Completeness: how far an attribution's sum is from what it must sum to. Always computed, never hidden."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analyzer.graph.precision import epsilon

EXACT = 1e-4
"""The share of the output within which all terms of FullGrad count as complete. Float32 leaves about 1e-6."""


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


LOGIT = (
    'where a Softmax or Sigmoid computes the output, explain its logit, Target(…, before="softmax") or "sigmoid" '
    "(--logit)"
)


def rounding_remark(sums: Completeness) -> str:
    """Say what it means that terms miss the output which they sum to by construction, and what to do about it."""
    unit = epsilon(sums.output.dtype)
    missed = int(np.argmax(np.where(sums.within(EXACT), -1, np.abs(sums.total - sums.output))))
    terms, output = float(sums.floor[missed]) / unit, float(sums.output[missed])
    defect = (
        "--backend torch --precision float64 tells rounding, with which the sum then holds, from a defect"
        if unit > np.finfo(np.float64).eps
        else "report the model as a defect of onnxplain"
    )
    return (
        f"expected terms that sum to the output, {output:.2g}; their sizes sum to {terms:.2g}, and they miss it. Do "
        f"not rely on the maps of this result. Fix: {LOGIT}; otherwise {defect}"
    )


def path_remark(sums: Completeness) -> str:
    """Say how the sum of a path method comes closer to the difference of its outputs."""
    few = "more steps, or a tolerance, bring the sum closer"
    if (sums.error <= 1).all():
        return few
    return (
        f"{few}; the output hardly differs from that of the baseline, so that little is left to explain: choose "
        f"another baseline, or {LOGIT}"
    )


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
