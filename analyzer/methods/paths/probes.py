"""Look for what the first points of a line do not show: outputs between them, which their gradients do not foresee.

Nine equidistant points see nothing of a bump that lies between two of them: all gradients agree, and so do the sums.
A forward pass tells the output at further points at a third of the cost of a gradient. There is one in each of PROBES
equal parts of the line, at a place drawn with a fixed seed. So a feature that shows in the output over more than
2/PROBES of the line is always seen; of a narrower one, over a share w, the chance of a probe in it is about PROBES·w.
From outputs at probes, and the points around them, to how much of each output these do not foresee.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PROBES = 32
_SEED = 20
_CURVATURE = 0.25
"""A slope that changes steadily from one end of an interval to the other moves the output between them by at most a
quarter of that change, times the interval."""


@dataclass(frozen=True, eq=False)
class Probe:
    """The output (K,) at `alpha` of a line; value (D,): of the tensors that are attributed, as of a Point."""

    alpha: float
    output: np.ndarray
    value: np.ndarray | None = None


def probe_alphas(count: int = PROBES) -> np.ndarray:
    """Return one place in each of so many equal parts of a line, the same for every line."""
    drawn: np.ndarray = (np.arange(count) + np.random.default_rng(_SEED).random(count)) / count
    return drawn


def beyond_cubic(
    output: np.ndarray,
    t: float,
    ends: tuple[np.ndarray, np.ndarray],
    moves: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Return how far an output is from the cubic through both ends, (K,), beyond what a steady slope allows.

    t: where the output is, as a share of the interval. moves: the slopes at both ends, times the interval.
    """
    cubic = (
        (1 + 2 * t) * (1 - t) ** 2 * ends[0]
        + t**2 * (3 - 2 * t) * ends[1]
        + t * (1 - t) * ((1 - t) * moves[0] - t * moves[1])
    )
    beyond: np.ndarray = np.maximum(np.abs(output - cubic) - _CURVATURE * np.abs(moves[1] - moves[0]), 0.0)
    return beyond


def beyond_tangents(
    output: np.ndarray, tangents: tuple[np.ndarray, np.ndarray], change: np.ndarray
) -> np.ndarray:
    """Return how far an output is from between the tangents, (K,), beyond what a steady slope allows.

    change: of the gradient between the ends, times that of the values, sizes summed over all elements.
    """
    low, high = np.minimum(*tangents), np.maximum(*tangents)
    outside = np.maximum(low - output, output - high)
    beyond: np.ndarray = np.maximum(outside - _CURVATURE * change, 0.0)
    return beyond
