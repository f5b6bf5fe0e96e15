"""Quadrature on [0, 1]: nodes and weights by the name of a rule. The weights of every rule sum to one.

A rule's order is the power of the step with which its error falls on a smooth function: 1 for the left and right
ends, 2 for midpoints and trapezoids, 4 for Simpson's rule; Gauss and Legendre's is exact for polynomials of degree
2·steps − 1. On a network of piecewise constant gradients each of them is of order 1, whatever its name.
Source: Davis & Rabinowitz 1984, "Methods of Numerical Integration".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np

from analyzer.errors import AnalysisError

Quadrature = tuple[np.ndarray, np.ndarray]
RuleName = Literal["gauss-legendre", "trapezoid", "midpoint", "left", "right", "simpson"]


def gauss_legendre(steps: int) -> Quadrature:
    """The roots of a Legendre polynomial: all inside, denser towards both ends."""
    nodes, weights = _legendre(steps)
    return (nodes + 1) / 2, weights / 2


@lru_cache
def _legendre(steps: int) -> Quadrature:
    """Nodes in [−1, 1], found as eigenvalues, which takes as long as a small network's gradient."""
    return np.polynomial.legendre.leggauss(steps)


def trapezoid(steps: int) -> Quadrature:
    """Equidistant, both ends among them, at half weight."""
    weights = np.full(steps, 1 / (steps - 1))
    weights[[0, -1]] /= 2
    return np.linspace(0, 1, steps), weights


def simpson(steps: int) -> Quadrature:
    """Equidistant, both ends among them: parabolas through every three neighbours.

    Of an even number of nodes the last four have a cubic, Simpson's 3/8 rule, which is of order 4 as well.
    """
    weights = np.zeros(steps)
    parabolas = steps if steps % 2 else steps - 3
    if parabolas > 1:
        weights[:parabolas] += np.where(np.arange(parabolas) % 2, 4 / 3, 2 / 3)
        weights[[0, parabolas - 1]] -= 1 / 3
    if parabolas < steps:
        weights[parabolas - 1 :] += np.array([3, 9, 9, 3]) / 8
    return np.linspace(0, 1, steps), weights / (steps - 1)


def midpoint(steps: int) -> Quadrature:
    """The middles of equal intervals."""
    return (np.arange(steps) + 0.5) / steps, np.full(steps, 1 / steps)


def left(steps: int) -> Quadrature:
    """The left ends of equal intervals: the baseline is among them."""
    return np.arange(steps) / steps, np.full(steps, 1 / steps)


def right(steps: int) -> Quadrature:
    """The right ends of equal intervals: the input is among them."""
    return np.arange(1, steps + 1) / steps, np.full(steps, 1 / steps)


# Each with the fewest steps that it has a meaning for.
_RULES: dict[str, tuple[Callable[[int], Quadrature], int]] = {
    "gauss-legendre": (gauss_legendre, 1),
    "trapezoid": (trapezoid, 2),
    "midpoint": (midpoint, 1),
    "left": (left, 1),
    "right": (right, 1),
    "simpson": (simpson, 3),
}
RULES = tuple(_RULES)


def quadrature(rule: str, steps: int) -> Quadrature:
    """Nodes in [0, 1], (steps,), and weights that sum to one, (steps,).

    rule: "gauss-legendre", "trapezoid", "midpoint", "left", "right" or "simpson".
    Raises AnalysisError for another name, or too few steps.
    """
    if rule not in _RULES:
        raise AnalysisError(f"unknown rule {rule!r}. Fix: choose from {', '.join(RULES)}")
    nodes_of, least = _RULES[rule]
    if not isinstance(steps, (int, np.integer)) or isinstance(steps, bool) or steps < least:
        raise AnalysisError(
            f"{rule} needs at least {least} step{'s' * (least > 1)}, got {steps}. Fix: give steps={least} (--steps) "
            "or more"
        )
    return nodes_of(int(steps))
