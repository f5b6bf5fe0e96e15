"""Guided Integrated Gradients: integration along a path that changes the features of small gradient first.

A straight line passes through points where the gradient is large and has nothing to do with the input. Here every step
moves those features on whose partial derivatives are smallest, within a band around the straight line. From a
Differentiable, inputs and baselines to attributions; as every path, it sums to f(input) − f(baseline) as the steps grow
fine. The features of several inputs are ordered together.
Source: Kapishnikov, Venugopalan, Avci, Wedin, Terry & Bolukbasi 2021, "Guided Integrated Gradients: an Adaptive Path
Method for Removing Noise"; the band around the line is that of the authors' code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.bound import Gradients
from analyzer.errors import AnalysisError
from analyzer.methods.exporting import Hosted
from analyzer.methods.numbers import generator
from analyzer.methods.paths.baselines import BaselineLike, averaged, baseline_feeds
from analyzer.methods.paths.fixed_target import Held, hold, in_batches
from analyzer.methods.paths.path_result import PathAttribution, path_attributions
from analyzer.methods.registry import method
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Inputs, Progress, Rng

RULES = ("trapezoid", "left")
GuidedRule = Literal["trapezoid", "left"]
# The distance to the input is met to within this, relative and absolute.
_MET = 1e-9


@dataclass(frozen=True)
class PathSettings:
    """Of the path, see `guided_integrated_gradients`. Raises AnalysisError where one is out of range."""

    steps: int
    fraction: float
    max_dist: float
    anchors: int
    rule: str

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise AnalysisError(f"unknown rule {self.rule!r}. Fix: choose from {', '.join(RULES)}")
        if not all(isinstance(number, (int, np.integer)) for number in (self.steps, self.anchors)):
            raise AnalysisError(
                f"got steps={self.steps} and anchors={self.anchors}. Fix: give whole numbers, steps=200, anchors=0"
            )
        if self.anchors < 0 or self.steps <= self.anchors:
            raise AnalysisError(
                f"a path of {self.steps} steps and {self.anchors} anchors has no step between two anchors. Fix: give "
                "more steps than anchors"
            )
        if not 0 < self.fraction <= 1:
            raise AnalysisError(
                f"expected fraction above 0 and at most 1, got {self.fraction}. Fix: give fraction=0.25"
            )
        if not 0 <= self.max_dist <= 1:
            raise AnalysisError(
                f"expected max_dist from 0 to 1, got {self.max_dist}. Fix: give max_dist=0.02"
            )


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class GuidedIntegratedGradients(PathAttribution):
    """The result of `guided_integrated_gradients`.

    baseline: where the path began, in the form of the inputs; a list of several, over which is averaged.
    standard_error: of that mean, like the attributions; None of a single baseline.
    """

    standard_error: Any
    baseline: Any


@method(
    "guided-ig",
    export=Hosted(
        "each step of its path depends on the gradients before it",
        "export integrated-gradients",
    ),
    line="Integrated Gradients along a less noisy path",
    caption="Guided Integrated Gradients",
    note="red speaks for the class, blue against it",
    source="Kapishnikov et al. 2021",
    cost="{steps} gradients in sequence (steps)",
    signed=True,
)
def guided_integrated_gradients(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: BaselineLike | Mapping[str, BaselineLike] = 0.0,
    steps: int = 200,
    fraction: float = 0.25,
    max_dist: float = 0.02,
    anchors: int = 0,
    rule: GuidedRule = "trapezoid",
    rng: Rng = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    verify: bool = True,
) -> GuidedIntegratedGradients:
    """Integrate the gradient along a path that moves features of small gradient first.

    inputs: (N, *features), or {input name: array}; integer inputs are held.
    target: see `Target`; None explains the class that is highest at the inputs.
    baseline: as `integrated_gradients` takes it; attributions are averaged over several.
    steps: steps of the path.
    fraction: share of the features that move at once, in (0, 1].
    max_dist: how far a feature may leave the straight line, as a share of it: 0 is Integrated Gradients, 1 sets no
        bound.
    anchors: points of the straight line, evenly spaced, that the path passes through; `steps` and `max_dist` are then
        shares of each part.
    rule: "trapezoid" takes the mean of the gradients at both ends of a step, which costs one gradient more; "left" the
        first, as published.
    rng: a Generator or a seed for random baselines.
    batch_size: samples evaluated at once.
    progress: called with (points done, points planned).
    Returns attributions that sum to f(inputs) − f(baseline) up to `delta` (N,).
    Raises AnalysisError for settings out of range, and what `make_baselines` raises; InputError, TargetError,
    UnsupportedOp.
    """
    settings = PathSettings(steps, fraction, max_dist, anchors, rule)
    held = hold(differentiate(model, verify=verify).bind(inputs, target))
    starts = baseline_feeds(held.fn, held.feeds, baseline, generator(rng))
    evaluations = (steps + (rule == "trapezoid")) * len(starts)
    count = _counting(progress, evaluations * held.samples)

    totals, at_starts = [], []
    for start in starts:
        parts = [
            _integrate(held, start, rows, settings, count) for rows in in_batches(held.samples, batch_size)
        ]
        totals.append(np.concatenate([total for total, _ in parts]))
        at_starts.append(np.concatenate([output for _, output in parts]))
    mean, error = averaged(totals)
    difference = held.output - np.mean(at_starts, axis=0)
    begun = [held.form({name: start[name] for name in held.names}) for start in starts]
    return GuidedIntegratedGradients(
        **path_attributions(held, _unflat(held, mean), difference, evaluations),
        standard_error=None if error is None else held.form(_unflat(held, error)),
        baseline=begun[0] if len(begun) == 1 else begun,
    )


def _counting(progress: Progress | None, planned: int) -> Callable[[int], None]:
    """What is told of points done since, and tells of all that are done."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, planned)

    return count


def _integrate(
    held: Held, start: Arrays, rows: np.ndarray, settings: PathSettings, count: Callable[[int], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The attributions of some samples (n, features of all inputs), and their outputs at the start (n,)."""

    def gradients(point: np.ndarray) -> Gradients:
        found = held.finite_gradients(_unflat(held, point), rows)
        count(len(rows))
        return found

    begin, end = (
        _flat(held, {name: feeds[name][rows] for name in held.names}) for feeds in (start, held.feeds)
    )
    total, point, parts = np.zeros_like(begin), begin, settings.anchors + 1
    first = gradients(begin)
    slope = _flat(held, first.gradients)
    for part, steps in enumerate(np.array_split(np.arange(settings.steps), parts)):
        bands = [
            Band(low + (high - low) * (part / parts), low + (high - low) * ((part + 1) / parts), settings)
            for low, high in zip(begin, end, strict=True)
        ]
        for step in range(len(steps)):
            alpha = (step + 1) / len(steps)
            moved = np.stack([b.advance(p, g, alpha) for b, p, g in zip(bands, point, slope, strict=True)])
            last = part == settings.anchors and step == len(steps) - 1
            if settings.rule == "left":
                total += (moved - point) * slope
            if settings.rule == "trapezoid" or not last:
                before, slope = slope, _flat(held, gradients(moved).gradients)
            if settings.rule == "trapezoid":
                total += (moved - point) * (before + slope) / 2
            point = moved
    return total, first.output.astype(np.float64)


@dataclass(frozen=True)
class Band:
    """Where a path may run from `start` to `end`, flat arrays of one sample's features."""

    start: np.ndarray
    end: np.ndarray
    settings: PathSettings

    def at(self, alpha: float) -> np.ndarray:
        """The point of the straight line."""
        point: np.ndarray = self.start + (self.end - self.start) * alpha
        return point

    def advance(self, point: np.ndarray, gradient: np.ndarray, alpha: float) -> np.ndarray:
        """The next point: as far from the end, in L1, as the straight line at alpha, and within the band around it."""
        least, most = (max(alpha - self.settings.max_dist, 0.0), min(alpha + self.settings.max_dist, 1.0))
        point, limit, size = point.copy(), self.at(most), np.abs(gradient)
        late = self._behind(point, least)
        point[late] = self.at(least)[late]
        goal = (1 - alpha) * np.abs(self.end - self.start).sum()
        while True:
            left = np.abs(self.end - point).sum()
            if math.isclose(left, goal, rel_tol=_MET, abs_tol=_MET):
                return point
            # At its limit a feature is done: no threshold takes it in.
            size[point == limit] = np.inf
            threshold = np.partition(size, place := int(self.settings.fraction * (len(size) - 1)))[place]
            chosen = (size <= threshold) & (size < np.inf)
            room = np.abs(limit - point)[chosen].sum()
            if room > 0 and left - goal <= room:
                point[chosen] += ((left - goal) / room * (limit - point))[chosen]
                return point
            if room == 0:
                return point
            point[chosen] = limit[chosen]

    def _behind(self, point: np.ndarray, alpha: float) -> np.ndarray:
        """The features that have not come as far as the straight line at alpha; those that do not move have."""
        span = self.end - self.start
        moves = span != 0
        share = np.divide(point - self.start, span, out=np.ones_like(span), where=moves)
        late: np.ndarray = moves & (share < alpha)
        return late


def _flat(held: Held, arrays: Arrays) -> np.ndarray:
    """All attributed inputs of each sample in one row, (n, features), in double precision."""
    rows = [arrays[name].reshape(len(arrays[name]), -1).astype(np.float64) for name in held.names]
    return np.concatenate(rows, axis=1)


def _unflat(held: Held, rows: np.ndarray) -> Arrays:
    """Rows (n, features) as {input name: (n, *features)}."""
    shapes = {name: held.feeds[name].shape[1:] for name in held.names}
    ends = np.cumsum([math.prod(shape) for shape in shapes.values()])[:-1]
    parts = np.split(rows, ends, axis=1)
    return {
        name: part.reshape(len(rows), *shape)
        for part, (name, shape) in zip(parts, shapes.items(), strict=True)
    }
