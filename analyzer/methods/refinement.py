"""Integrate gradients along lines to a stated error: bisect where the map still changes, and where the sum is wrong.

Completeness holds on every part of a path: ∫ₐᵇ ⟨∇f, x − x′⟩ dα = f(b) − f(a), and f(b) comes with the gradient at b. So
every interval knows the error of its own sum exactly, at no cost. What the sum cannot tell is the error of the map: for
that each interval keeps both ends and its middle, whose trapezoids, one coarse and two fine, differ by a *change* of
the map. Where the gradient jumps once within an interval, at a place nobody knows, the error that two trapezoids leave
has the root mean square ‖change‖ / √3; jumps of many intervals add up as squares do. (On EfficientNet-Lite0 this
predicts the true error of the map to within a tenth.) Where the gradient is smooth, the intervals' sums show it:
Simpson's rule then leaves far less of their error, and is taken.

Half of the intervals bisected are those that change the map most, half those whose own sums are furthest off. A line is
done when three numbers are small: the error of the whole sum, which could be luck; the root of the sum of the
intervals' squared errors, what it would be were their signs random; and the predicted error of the map.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from analyzer.errors import AnalysisError
from analyzer.methods.lines import Point

FIRST_LEAVES = 4
"""Intervals of every line to begin with: 9 gradients."""
LEAVES_A_ROUND = 4
"""Bisected of a line before its error is looked at again; an eighth of its intervals where that is more."""
SUM_SLACK = 3.0
"""How many tolerances the intervals' errors may make with random signs."""
MAP_SLACK = 5.0
"""How many tolerances the error of the map may be, where nobody says otherwise."""
ONE_JUMP = 1 / math.sqrt(3)
SMOOTH = 0.1
"""Simpson's rule is taken where it leaves less than this share of the errors of two trapezoids; by luck, one jump does
so in 3 of 100 places."""
SMOOTH_SLACK = 2.0
"""Errors of elements that cancel from the sums: the map errs up to 1.7 times as much as these tell."""
SHORTEST = 2.0**-20
"""Of an interval that is still bisected: points closer than that are one in single precision. Where all that moves
starts at 0 the points scale with α: it is then a share of the interval's end, down to NEAREST."""
NEAREST = 2.0**-100
"""The first α of a path from 0: the numbers there are still normal in single precision."""
ROUNDING = 16
LEAST_BUDGET = 3

Told = Callable[[int, int], None]


class Paths(Protocol):
    """What is integrated along: the points of several paths, and what an interval between two of them adds."""

    def evaluate(self, wanted: Sequence[tuple[int, float]], *, open_ends: bool = False) -> Iterator[Point]:
        """The points at (path, alpha), in their order."""

    def area(self, a: Point, b: Point) -> np.ndarray:
        """The integral from a to b by a trapezoid, (K, D), but for the direction of the path."""

    def direction(self, line: int) -> np.ndarray:
        """What the integrals of a path are multiplied with, (D,)."""

    def scales(self, line: int) -> bool:
        """Whether the points of a path are its end times α: precise however near they lie to its begin."""


@dataclass(frozen=True)
class Goal:
    """tolerance: of the sum, a share of |f(x) − f(x′)|. map_tolerance: of the map, relative L2. budget: gradients."""

    tolerance: float
    map_tolerance: float
    budget: int


@dataclass(frozen=True, eq=False)
class Leaf:
    """An interval from a over m to b. Of each target, (K,): the errors of the sums of one trapezoid (coarse) and of
    each half's (left, right), and change: ‖two trapezoids − one‖, over all attributed numbers.
    """

    a: Point
    m: Point
    b: Point
    coarse: np.ndarray
    left: np.ndarray
    right: np.ndarray
    change: np.ndarray

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
class Refined:
    """One line, integrated for each of K targets. total (K, D): the maps. Of each map, (K,):

    difference: f(x) − f(x′). delta: its sum less that. interval_error: the sum of the intervals' absolute errors.
    scatter: the root of the sum of their squares. map_error: the predicted relative L2 error. map_change: how far the
    last refinement moved it, relative L2.
    """

    total: np.ndarray
    difference: np.ndarray
    delta: np.ndarray
    interval_error: np.ndarray
    scatter: np.ndarray
    map_error: np.ndarray
    map_change: np.ndarray
    evaluations: int
    converged: np.ndarray


def as_goal(tolerance: float | None, map_tolerance: float | None, max_evaluations: int) -> Goal | None:
    """What a refinement must meet; None without a tolerance. Raises AnalysisError for what is out of range."""
    if tolerance is None:
        if map_tolerance is not None:
            raise AnalysisError(
                "got map_tolerance without tolerance. Fix: give tolerance= (--tolerance), too"
            )
        return None
    for share in (tolerance, map_tolerance):
        if share is not None and (not isinstance(share, (int, float, np.number)) or not share > 0):
            raise AnalysisError(
                f"expected a tolerance above 0, got {share!r}. Fix: give a share, such as tolerance=0.01"
            )
    if max_evaluations < LEAST_BUDGET:
        raise AnalysisError(
            f"a tolerance takes at least {LEAST_BUDGET} evaluations, got {max_evaluations}. Fix: omit "
            "max_evaluations, or give more"
        )
    return Goal(tolerance, MAP_SLACK * tolerance if map_tolerance is None else map_tolerance, max_evaluations)


class Line:
    """The intervals of one line, and what they add up to."""

    def __init__(self, paths: Paths, number: int, points: Sequence[Point]) -> None:
        """number: of the line. points: 2n + 1 of them, from 0 to 1, for n intervals."""
        self.area, self.direction = paths.area, paths.direction(number)
        self.scales = paths.scales(number)
        self.coarse, self.fine = (np.zeros(points[0].gradient.shape) for _ in range(2))
        self.leaves: list[Leaf] = []
        for a, m, b in zip(points[:-2:2], points[1:-1:2], points[2::2], strict=True):
            self.coarse += self.area(a, b)
            self._add(a, m, b)
        self.evaluations = len(points)
        self.moved = self.fine - self.coarse
        self.difference = points[-1].output - points[0].output
        ulp = float(np.finfo(points[0].gradient.dtype).eps)
        self.rounding = ROUNDING * ulp * (np.abs(points[-1].output) + np.abs(points[0].output))

    def split(self, chosen: Sequence[tuple[Leaf, Point, Point]]) -> None:
        """Bisect some intervals, with the middles of their halves."""
        before = self.total()
        gone = {id(leaf) for leaf, _, _ in chosen}
        self.leaves = [leaf for leaf in self.leaves if id(leaf) not in gone]
        for leaf, left, right in chosen:
            fine = self.area(leaf.a, leaf.m) + self.area(leaf.m, leaf.b)
            self.coarse += fine - self.area(leaf.a, leaf.b)
            self.fine -= fine
            self._add(leaf.a, left, leaf.m)
            self._add(leaf.m, right, leaf.b)
        self.evaluations += 2 * len(chosen)
        self.moved = self.total() - before

    def total(self) -> np.ndarray:
        """The integral along the line but for its direction, (K, D)."""
        if self._smooth():
            better: np.ndarray = self.fine + (self.fine - self.coarse) / 3
            return better
        return self.fine.copy()

    def state(self, goal: Goal) -> Refined:
        """What is known now."""
        total = self.total() * self.direction
        errors = self._errors()
        delta = total.sum(axis=1) - self.difference
        scatter = np.linalg.norm(errors, axis=0)
        size = np.linalg.norm(total, axis=1)
        allowed = self.allowed(goal)
        map_error = self._map_error()
        met = (np.abs(delta) <= allowed) & (scatter <= SUM_SLACK * allowed)
        # Where the outputs are rounded by more than the tolerance, their difference shows no error: the map must.
        hidden = self.rounding > goal.tolerance * np.abs(self.difference)
        map_tolerance = np.where(hidden, min(goal.tolerance, goal.map_tolerance), goal.map_tolerance)
        return Refined(
            total=total,
            difference=self.difference,
            delta=delta,
            interval_error=np.abs(errors).sum(axis=0),
            scatter=scatter,
            map_error=self._stated(map_error, size, delta),
            map_change=_share(np.linalg.norm(self.moved * self.direction, axis=1), size),
            evaluations=self.evaluations,
            converged=met & (map_error <= map_tolerance * size),
        )

    def allowed(self, goal: Goal) -> np.ndarray:
        """The error of the sum that meets the goal, (K,)."""
        found: np.ndarray = np.maximum(goal.tolerance * np.abs(self.difference), self.rounding)
        return found

    def worst(self, most: int, goal: Goal) -> list[Leaf]:
        """The intervals to bisect next, at most so many: by their share in the map's change, and in the sum's error."""
        size = np.linalg.norm(self.fine * self.direction, axis=1)
        allowed = self.allowed(goal)
        divisible = [leaf for leaf in self.leaves if self._divisible(leaf)]
        count = min(most, max(LEAVES_A_ROUND, len(self.leaves) // 8))
        by_change = sorted(divisible, key=lambda leaf: -float(_share(leaf.change, size).max()))
        first = by_change[: -(-count // 2)]
        taken = {id(leaf) for leaf in first}
        by_error = sorted(by_change, key=lambda leaf: -float(_share(np.abs(leaf.fine), allowed).max()))
        return first + [leaf for leaf in by_error if id(leaf) not in taken][: count - len(first)]

    def _divisible(self, leaf: Leaf) -> bool:
        """Whether the points within an interval differ from its ends."""
        if not self.scales:
            return leaf.b.alpha - leaf.a.alpha > SHORTEST
        return leaf.b.alpha > NEAREST and leaf.b.alpha - leaf.a.alpha > SHORTEST * leaf.b.alpha

    def _stated(self, map_error: np.ndarray, size: np.ndarray, delta: np.ndarray) -> np.ndarray:
        """The relative error of the map, (K,): at least that of its sum, but for rounding."""
        missed = np.where(np.abs(delta) > self.rounding, np.abs(delta), 0.0)
        found: np.ndarray = np.maximum(_share(map_error, size), _share(missed, np.abs(self.difference)))
        return found

    def _add(self, a: Point, m: Point, b: Point) -> None:
        first, second = self.area(a, m), self.area(m, b)
        coarse, fine = self.area(a, b), first + second
        self.fine += fine
        self.leaves.append(
            Leaf(
                a,
                m,
                b,
                coarse=coarse @ self.direction - (b.output - a.output),
                left=first @ self.direction - (m.output - a.output),
                right=second @ self.direction - (b.output - m.output),
                change=np.linalg.norm((fine - coarse) * self.direction, axis=1),
            )
        )

    def _errors(self) -> np.ndarray:
        """The errors of the parts' own sums, (parts, K)."""
        if self._smooth():
            return np.array([leaf.simpson for leaf in self.leaves])
        return np.array([error for leaf in self.leaves for error in (leaf.left, leaf.right)])

    def _smooth(self) -> bool:
        fine = np.linalg.norm([leaf.fine for leaf in self.leaves])
        return bool(np.linalg.norm([leaf.simpson for leaf in self.leaves]) < SMOOTH * fine)

    def _map_error(self) -> np.ndarray:
        """The predicted error of the map, L2, (K,)."""
        changes = np.linalg.norm([leaf.change for leaf in self.leaves], axis=0)
        if self._smooth():
            # The change is 3/4 of one trapezoid's error, of which Simpson's rule leaves what it leaves of its sum's.
            coarse = np.linalg.norm([leaf.coarse for leaf in self.leaves])
            simpson = np.linalg.norm([leaf.simpson for leaf in self.leaves])
            smooth: np.ndarray = changes * min(ONE_JUMP, SMOOTH_SLACK * 4 / 3 * float(simpson / coarse))
            return smooth
        # Jumps err with random signs. Where the errors of intervals add up instead, their sums are right by the form of
        # the function, as of any quadratic one, and do not show how smooth it is: a third of the change is left.
        together = np.linalg.norm((self.fine - self.coarse) * self.direction, axis=1)
        found: np.ndarray = np.maximum(changes * ONE_JUMP, together / 3)
        return found


def refine(
    paths: Paths, numbers: Sequence[int], goal: Goal, tell: Told | None = None
) -> tuple[list[Refined], bool]:
    """Integrate some of the lines, their points evaluated together, until each has met the goal or spent its budget.

    tell: called with (gradients computed, gradients foreseen). An interrupt (Ctrl-C) ends it with what is known so far,
    once every line has its first points; the flag says whether it came.
    """
    first = 2 * min(FIRST_LEAVES, (goal.budget - 1) // 2) + 1
    alphas = np.linspace(0, 1, first)
    points = list(paths.evaluate([(number, alpha) for number in numbers for alpha in alphas], open_ends=True))
    walked = [Line(paths, number, points[k * first : (k + 1) * first]) for k, number in enumerate(numbers)]
    del points
    states = [line.state(goal) for line in walked]
    try:
        while chosen := _next(walked, states, goal):
            if tell is not None:
                pairs = zip(walked, states, strict=True)
                foreseen = sum(_foreseen(state, line.allowed(goal), goal) for line, state in pairs)
                tell(sum(line.evaluations for line in walked), foreseen)
            middles = paths.evaluate(
                [(numbers[k], middle) for k, leaves in chosen for leaf in leaves for middle in _middles(leaf)]
            )
            for k, leaves in chosen:
                walked[k].split([(leaf, next(middles), next(middles)) for leaf in leaves])
                states[k] = walked[k].state(goal)
    except KeyboardInterrupt:
        return states, True
    return states, False


def _next(walked: Sequence[Line], states: Sequence[Refined], goal: Goal) -> list[tuple[int, list[Leaf]]]:
    """What to bisect of which line."""
    chosen = []
    for k, (line, state) in enumerate(zip(walked, states, strict=True)):
        afford = (goal.budget - line.evaluations) // 2
        if not state.converged.all() and afford > 0 and (leaves := line.worst(afford, goal)):
            chosen.append((k, leaves))
    return chosen


def _foreseen(state: Refined, allowed: np.ndarray, goal: Goal) -> int:
    """The gradients that a line will take, were its errors to fall as their number grows."""
    if state.converged.all():
        return state.evaluations
    sums = _share(np.maximum(np.abs(state.delta), state.scatter / SUM_SLACK), allowed)
    factor = max(float(sums.max()), float(state.map_error.max()) / goal.map_tolerance, 1.1)
    return int(min(goal.budget, state.evaluations * factor))


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is no part."""
    share: np.ndarray = np.divide(part, whole, out=np.where(part > 0, np.inf, 0.0), where=whole > 0)
    return share


def _middles(leaf: Leaf) -> tuple[float, float]:
    return (leaf.a.alpha + leaf.m.alpha) / 2, (leaf.m.alpha + leaf.b.alpha) / 2
