"""The intervals of a line: what the points at both ends and in the middle of each tell of the integral over it.

From paths and their points to leaves, with three estimates of errors. That of their sums is known. That of the map by
trapezoids comes from how far two differ from one, and that by Simpson's rule from how far bisection moved it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from analyzer.methods.paths.lines import Point
from analyzer.methods.paths.probes import Probe


class Paths(Protocol):
    """Several paths: their points, and the contribution of an interval between two points."""

    def evaluate(self, wanted: Sequence[tuple[int, float]], *, open_ends: bool = False) -> Iterator[Point]:
        """The points at (path, alpha), in their order."""

    def probes(self, wanted: Sequence[tuple[int, float]]) -> Iterator[Probe]:
        """The outputs at (path, alpha), in their order, by forward passes."""

    def unforeseen(self, line: int, probe: Probe, a: Point, b: Point) -> np.ndarray:
        """How far the output at a probe between two points is from what these allow, (K,); 0 within that."""

    def travel(self, a: Point, b: Point, weights: np.ndarray) -> np.ndarray:
        """Return how far the attributed tensors move from a to b, (K,), elements by weights (K, D)."""

    def area(self, a: Point, b: Point) -> np.ndarray:
        """The integral from a to b by a trapezoid, (K, D), but for the direction of the path."""

    def direction(self, line: int) -> np.ndarray:
        """Return the factor of the integrals of a path, (D,)."""

    def scales(self, line: int) -> bool:
        """Whether the points of a path are its end times α: precise however near they lie to its begin."""

    def unseen(self, a: Point, m: Point, b: Point) -> np.ndarray:
        """The error, L2, (K,), that trapezoids leave where one half of an interval holds all of its change."""

    def rounding(self, points: Sequence[Point]) -> np.ndarray:
        """The error of the map, L2, (K,), by the rounding of values alone."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """An interval from a over m to b. Of each target, (K,): the errors of the sums of one trapezoid (coarse) and of
    each half's (left, right), and change: ‖two trapezoids − one‖, over all attributed numbers. above: how far Simpson's
    rule moved, L2, when the interval and its sibling took the place of one: its share. travels (2, K): how far the
    attributed tensors move within either half.
    """

    a: Point
    m: Point
    b: Point
    coarse: np.ndarray
    left: np.ndarray
    right: np.ndarray
    change: np.ndarray
    above: np.ndarray
    travels: np.ndarray

    @property
    def fine(self) -> np.ndarray:
        """The errors of the sums of two trapezoids, (K,)."""
        both: np.ndarray = self.left + self.right
        return both

    @property
    def simpson(self) -> np.ndarray:
        """The errors of the sums by Simpson's rule, (K,)."""
        better: np.ndarray = (4 * self.fine - self.coarse) / 3
        return better


@dataclass(frozen=True, eq=False)
class Made:
    """A leaf with its integrals by one trapezoid and by two, (K, D), but for the direction."""

    leaf: Leaf
    coarse: np.ndarray
    fine: np.ndarray

    @property
    def simpson(self) -> np.ndarray:
        """The integral by Simpson's rule."""
        return _simpson(self.coarse, self.fine)


def _simpson(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    better: np.ndarray = (4 * fine - coarse) / 3
    return better


def make(paths: Paths, direction: np.ndarray, weights: np.ndarray, three: tuple[Point, Point, Point]) -> Made:
    """Return the interval from a over m to b, which has no sibling yet. weights (K, D): of what moves."""
    a, m, b = three
    first, second = paths.area(a, m), paths.area(m, b)
    coarse, fine = paths.area(a, b), first + second
    change = np.hypot(np.linalg.norm((fine - coarse) * direction, axis=1), paths.unseen(a, m, b))
    leaf = Leaf(
        a,
        m,
        b,
        coarse=coarse @ direction - (b.output - a.output),
        left=first @ direction - (m.output - a.output),
        right=second @ direction - (b.output - m.output),
        change=change,
        above=change,
        travels=np.stack([paths.travel(a, m, weights), paths.travel(m, b, weights)]),
    )
    return Made(leaf, coarse, fine)


def siblings(paths: Paths, direction: np.ndarray, one: Made, two: Made) -> tuple[Leaf, Leaf]:
    """Return two halves of one interval, with how far Simpson's rule differs between them and the whole."""
    whole = _simpson(paths.area(one.leaf.a, two.leaf.b), one.coarse + two.coarse)
    moved = np.linalg.norm((one.simpson + two.simpson - whole) * direction, axis=1) / math.sqrt(2)
    return replace(one.leaf, above=moved), replace(two.leaf, above=moved)
