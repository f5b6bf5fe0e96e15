"""Integrate gradients along lines to a stated error: bisect where the map still changes, and where the sum is wrong.

Completeness holds on every part of a path: ∫ₐᵇ ⟨∇f, x − x′⟩ dα = f(b) − f(a), and f(b) comes with the gradient at b. So
every interval knows the error of its own sum exactly, at no cost. What the sum cannot tell is the error of the map: for
that each interval keeps both ends and its middle, whose trapezoids, one coarse and two fine, differ by a *change* of
the map. Where the gradient jumps once within an interval, at a place nobody knows, the error that two trapezoids leave
has the root mean square ‖change‖ / √3, and is at most ‖change‖; jumps of many intervals add up as squares do. (On
EfficientNet-Lite0 this predicts the true error of the map to within a tenth.) Where the gradient is smooth, both the
intervals' sums and the map show it: Simpson's rule then leaves far less of their error, and bisection moves its map far
less than that of trapezoids. It is then taken. A sum alone may be right by luck.

Half of the intervals bisected are those that change the map most, half those whose own sums are furthest off. A line is
done when three numbers are small: the error of the whole sum, which could be luck; the root of the sum of the
intervals' squared errors, what it would be were their signs random; and the predicted error of the map. The points
must also predict the outputs at further points (probes.py). A change of the function is missed where it is narrower
than the distance of the points and shows neither at them nor at the probes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.errors import AnalysisError
from analyzer.graph.precision import epsilon
from analyzer.methods.paths.intervals import Leaf, Made, Paths, make, siblings
from analyzer.methods.paths.lines import Point, largest_gradient
from analyzer.methods.paths.probes import PROBES, Probe, probe_alphas

FIRST_LEAVES = 4
"""Intervals of every line to begin with: 9 gradients."""
LEAVES_A_ROUND = 4
"""Bisected of a line before its error is looked at again; an eighth of its intervals where that is more."""
SUM_SLACK = 3.0
"""How many tolerances the intervals' errors may make with random signs."""
MAP_SLACK = 5.0
"""How many tolerances the error of the map may be, where nobody says otherwise."""
ONE_JUMP = 1 / math.sqrt(3)
SEVERAL_JUMPS = 0.6
"""The error of the first points, as a share of how far Simpson's rule moves, as found on random networks."""
SMOOTH = 0.1
"""Simpson's rule is taken where it leaves less than this share of the errors of two trapezoids; by luck, one jump does
so in 3 of 100 places."""
SMOOTH_SLACK = 2.0
"""Errors of elements that cancel from the sums: the map errs up to 1.7 times as much as these tell."""
LEFT_OF_A_MOVE = 0.5
"""The error that Simpson's rule leaves, as a share of how far bisection moved it: 1/15 of a smooth function."""
LONGEST = 0.25
"""The share of a path that half an interval may hold: within the network, an equal part of the line may hold all."""
SHORTEST = 2.0**-20
"""Of an interval that is still bisected: points closer than that are one in single precision. Where all that moves
starts at 0 the points scale with α: it is then a share of the interval's end, down to NEAREST."""
NEAREST = 2.0**-100
"""The first α of a path from 0: the numbers there are still normal in single precision."""
ROUNDING = 16
LEAST_BUDGET = 3

Told = Callable[[int, int], None]


@dataclass(frozen=True)
class Goal:
    """tolerance: of the sum, a share of |f(x) − f(x′)|. map_tolerance: of the map, relative L2. budget: gradients."""

    tolerance: float
    map_tolerance: float
    budget: int


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

    def __init__(self, paths: Paths, number: int, points: Sequence[Point], probes: Sequence[Probe]) -> None:
        """number: of the line. points: 2n + 1 of them, from 0 to 1, for n intervals."""
        self.paths, self.number, self.direction = paths, number, paths.direction(number)
        self.scales = paths.scales(number)
        self.probes = probes
        self._seen: dict[float, tuple[Leaf, np.ndarray]] = {}
        self.weights = largest_gradient(points)
        thirds = zip(points[:-2:2], points[1:-1:2], points[2::2], strict=True)
        made = [make(paths, self.direction, self.weights, three) for three in thirds]
        self.coarse, self.fine = (np.zeros(points[0].gradient.shape) for _ in range(2))
        for one in made:
            self.coarse += one.coarse
            self.fine += one.fine
        self.leaves: list[Leaf] = []
        for k in range(0, len(made), 2):
            self._add(made[k : k + 2])
        self.evaluations = len(points)
        self.moved = self.fine - self.coarse
        self.difference = points[-1].output - points[0].output
        self.ulp = epsilon(points[0].gradient.dtype)
        self.rounding = ROUNDING * self.ulp * (np.abs(points[-1].output) + np.abs(points[0].output))
        self.map_rounding = paths.rounding(points)

    def split(self, chosen: Sequence[tuple[Leaf, Point, Point]]) -> None:
        """Bisect some intervals, with the middles of their halves."""
        before = self.total()
        gone = {id(leaf) for leaf, _, _ in chosen}
        self.leaves = [leaf for leaf in self.leaves if id(leaf) not in gone]
        for leaf, left, right in chosen:
            one, two = (
                make(self.paths, self.direction, self.weights, three)
                for three in ((leaf.a, left, leaf.m), (leaf.m, right, leaf.b))
            )
            fine = one.coarse + two.coarse
            self.coarse += fine - self.paths.area(leaf.a, leaf.b)
            self.fine += one.fine + two.fine - fine
            self._add([one, two])
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
        self.hidden = self._hidden(allowed)
        beyond = np.max([excess for _, excess in self.hidden], axis=0, initial=0.0)
        predicted = self._map_error()
        map_error = np.maximum(np.hypot(predicted, self.map_rounding), beyond)
        met = (np.abs(delta) <= allowed) & (scatter <= SUM_SLACK * allowed)
        met &= not (self.hidden or self._long())
        # Where the outputs are rounded by more than the tolerance, their difference shows no error: the map must.
        hidden = self.rounding > goal.tolerance * np.abs(self.difference)
        map_tolerance = np.where(hidden, min(goal.tolerance, goal.map_tolerance), goal.map_tolerance)
        converged = met & (map_error <= map_tolerance * size)
        # Bisection does not remove an error below the rounding of values.
        self.settled = converged | (met & (predicted <= self.map_rounding))
        return Refined(
            total=total,
            difference=self.difference,
            delta=delta,
            interval_error=np.abs(errors).sum(axis=0),
            scatter=scatter,
            map_error=self._stated(map_error, size, delta),
            map_change=_share(np.linalg.norm(self.moved * self.direction, axis=1), size),
            evaluations=self.evaluations,
            converged=converged,
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
        hidden = {id(leaf): float(_share(beyond, allowed).max()) for leaf, beyond in self.hidden}
        long = {id(leaf) for leaf in self._long()}
        if unknown := [leaf for leaf in divisible if id(leaf) in hidden or id(leaf) in long]:
            return sorted(unknown, key=lambda leaf: -hidden.get(id(leaf), np.inf))[:count]
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

    def _add(self, made: Sequence[Made]) -> None:
        """Take in the two halves of one interval, or a first interval that has no sibling."""
        if len(made) == 2:
            self.leaves += siblings(self.paths, self.direction, *made)
        else:
            self.leaves += [one.leaf for one in made]

    def _long(self) -> list[Leaf]:
        """The intervals of which one half holds more of the path than LONGEST."""
        most = LONGEST * np.sum([leaf.travels.sum(axis=0) for leaf in self.leaves], axis=0)
        return [leaf for leaf in self.leaves if (leaf.travels > most).any()]

    def _hidden(self, allowed: np.ndarray) -> list[tuple[Leaf, np.ndarray]]:
        """The intervals that hold outputs which their points do not foresee, and by how much, (K,)."""
        leaves = sorted(self.leaves, key=lambda leaf: leaf.a.alpha)
        starts = [leaf.a.alpha for leaf in leaves]
        places = np.searchsorted(starts, [probe.alpha for probe in self.probes], "right") - 1
        found = []
        for probe, leaf in zip(self.probes, (leaves[place] for place in places), strict=True):
            known = self._seen.get(probe.alpha)
            if known is None or known[0] is not leaf:
                ends = (leaf.a, leaf.m) if probe.alpha <= leaf.m.alpha else (leaf.m, leaf.b)
                known = (leaf, self.paths.unforeseen(self.number, probe, *ends))
                self._seen[probe.alpha] = known
            if (known[1] > np.maximum(allowed, ROUNDING * self.ulp * np.abs(probe.output))).any():
                found.append(known)
        return found

    def _errors(self) -> np.ndarray:
        """The errors of the parts' own sums, (parts, K)."""
        if self._smooth():
            return np.array([leaf.simpson for leaf in self.leaves])
        return np.array([error for leaf in self.leaves for error in (leaf.left, leaf.right)])

    def _smooth(self) -> bool:
        fine, simpson, change, above = (
            np.linalg.norm([getattr(leaf, name) for leaf in self.leaves])
            for name in ("fine", "simpson", "change", "above")
        )
        return bool(simpson < SMOOTH * fine and above < SMOOTH * change)

    def _map_error(self) -> np.ndarray:
        """The predicted error of the map, L2, (K,)."""
        each = np.array([leaf.change for leaf in self.leaves])
        changes = np.linalg.norm(each, axis=0)
        if self._smooth():
            # The change is 3/4 of one trapezoid's error, of which Simpson's rule leaves what it leaves of its sum's.
            coarse = np.linalg.norm([leaf.coarse for leaf in self.leaves])
            simpson = np.linalg.norm([leaf.simpson for leaf in self.leaves])
            share = min(ONE_JUMP, SMOOTH_SLACK * 4 / 3 * float(simpson / coarse))
            above = np.linalg.norm([leaf.above for leaf in self.leaves], axis=0)
            smooth: np.ndarray = np.maximum(changes * share, above * LEFT_OF_A_MOVE)
            return smooth
        # Jumps err with random signs, and one alone by no more than the change. Where the errors of intervals add up
        # instead, their sums are right by the form of the function, as of any quadratic one, and do not show how smooth
        # it is: a third of the change is left.
        together = np.linalg.norm((self.fine - self.coarse) * self.direction, axis=1)
        estimates = [changes * ONE_JUMP, together / 3, each.max(axis=0)]
        if len(self.leaves) <= FIRST_LEAVES:
            # Of the first points several jumps share an interval, and their changes may cancel.
            estimates.append(SEVERAL_JUMPS * np.linalg.norm([leaf.above for leaf in self.leaves], axis=0))
        found: np.ndarray = np.max(estimates, axis=0)
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
    places = probe_alphas(min(PROBES, goal.budget))
    probed = list(paths.probes([(number, alpha) for number in numbers for alpha in places]))
    walked = [
        Line(
            paths,
            number,
            points[k * first : (k + 1) * first],
            probed[k * len(places) : (k + 1) * len(places)],
        )
        for k, number in enumerate(numbers)
    ]
    del points, probed
    states = [line.state(goal) for line in walked]
    try:
        while chosen := _next(walked, goal):
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


def _next(walked: Sequence[Line], goal: Goal) -> list[tuple[int, list[Leaf]]]:
    """What to bisect of which line."""
    chosen = []
    for k, line in enumerate(walked):
        afford = (goal.budget - line.evaluations) // 2
        if not line.settled.all() and afford > 0 and (leaves := line.worst(afford, goal)):
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
