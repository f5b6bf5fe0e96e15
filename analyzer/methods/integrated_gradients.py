"""Integrated Gradients: the gradient integrated along the straight line from a baseline to the input.

Source: Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks". The weights of every
quadrature rule here sum to one, so a linear model is attributed exactly by each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.base import Arrays, Inputs
from analyzer.completeness import Completeness, measure, sample_sums
from analyzer.errors import AnalysisError
from analyzer.layout import channel_axes, input_channel_axis
from analyzer.methods.baselines import BaselineLike, make_baseline
from analyzer.target import Target, TargetLike, as_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class IntegratedGradients:
    """attributions: like the inputs, in the units of the output. delta (N,): their sum less f(x) − f(x′).

    evaluations: gradients computed, counted per sample. converged (N,): whether |delta| is within the
    tolerance asked for (all True without one). baseline: what the path began at, in the form of the inputs.
    """

    attributions: Any
    delta: np.ndarray
    completeness: Completeness
    evaluations: int
    converged: np.ndarray
    target: np.ndarray | None
    baseline: Any
    steps: int
    rule: str

    def plot(self, images: np.ndarray | None = None) -> Figure:
        """The attributions, summed over channels, over the images, one column a sample."""
        from analyzer.figures import PIXELS, plot_maps

        first = (
            next(iter(self.attributions.values()))
            if isinstance(self.attributions, dict)
            else self.attributions
        )
        unit = "units of the output, per pixel"
        return plot_maps(
            first, images, signed=True, title="Integrated Gradients", unit=unit, smoothing=PIXELS
        )


def quadrature(rule: str, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and weights that sum to one.

    "gauss-legendre" is exact for polynomials of degree 2·steps − 1; "trapezoid" has both ends among its
    nodes, at half weight. Raises AnalysisError for another name, or too few steps.
    """
    if rule == "gauss-legendre":
        _at_least(steps, 1, rule)
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (nodes + 1) / 2, weights / 2
    if rule == "trapezoid":
        _at_least(steps, 2, rule)
        weights = np.full(steps, 1 / (steps - 1))
        weights[[0, -1]] /= 2
        return np.linspace(0, 1, steps), weights
    raise AnalysisError(f'unknown rule {rule!r}; there are "gauss-legendre" and "trapezoid"')


def _at_least(steps: int, least: int, rule: str) -> None:
    if not isinstance(steps, (int, np.integer)) or steps < least:
        raise AnalysisError(f"{rule} needs at least {least} step{'s' * (least > 1)}, not {steps}")


def integrated_gradients(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: BaselineLike | Mapping[str, BaselineLike] = 0.0,
    steps: int = 50,
    rule: str = "gauss-legendre",
    tolerance: float | None = None,
    max_evaluations: int = 1024,
    batch_size: int = 16,
    rng: np.random.Generator | int | None = None,
    progress: Progress | None = None,
) -> IntegratedGradients:
    """Integrate the gradient along the straight line from the baseline to the inputs.

    inputs: (N, *features), or {input name: array}, in the model's own input units; integer inputs are held.
    target: see `Target`; None explains the class that is highest at the inputs, all along the path.
    baseline: a number, "black", "white", "random", "blurred", an array that broadcasts to the inputs, or one
        of these per input name. rng: a Generator or seed for "random".
    steps, rule: the quadrature. tolerance: double the steps of every sample whose |delta| exceeds this share of
        |f(x) − f(x′)|, up to `max_evaluations` gradients a sample; `converged` says how it ended.
    batch_size: points evaluated at once. progress: called with (points done, points planned).
    Returns attributions that sum to f(inputs) − f(baseline) up to `delta` (N,), never hidden.
    Raises InputError, ShapeError, TargetError, UnsupportedOp, AnalysisError for an unknown rule.
    Source: Sundararajan, Taly & Yan 2017, eq. 1.
    """
    quadrature(rule, steps)
    if tolerance is not None and not tolerance > 0:
        raise AnalysisError(f"the tolerance is a share above 0, not {tolerance}")
    fn = differentiate(model)
    feeds = fn.check_inputs(inputs)
    start = _baselines(fn, feeds, baseline, np.random.default_rng(rng))
    path = _Path(fn, feeds, start, target, batch_size, progress)
    samples = path.output.shape[0]
    totals, used = path.integrate(np.arange(samples), rule, steps)
    delta = path.delta(totals)
    spent = np.full(samples, used)
    size = steps
    while tolerance is not None:
        open_ = np.flatnonzero(
            (np.abs(delta) > tolerance * np.abs(path.difference)) & (spent + 2 * size <= max_evaluations)
        )
        if not open_.size:
            break
        size *= 2
        refined, used = path.integrate(open_, rule, size)
        spent[open_] += used
        for name, array in refined.items():
            totals[name][open_] = array
        delta = path.delta(totals)
    limit = np.inf if tolerance is None else tolerance * np.abs(path.difference)
    return IntegratedGradients(
        attributions=_like(inputs, totals),
        delta=delta,
        completeness=_completeness(path.difference, totals),
        evaluations=int(spent.max()),
        converged=np.abs(delta) <= limit,
        target=path.chosen,
        baseline=_like(inputs, {name: start[name] for name in totals}),
        steps=size,
        rule=rule,
    )


def _baselines(
    fn: Differentiable,
    feeds: Arrays,
    baseline: BaselineLike | Mapping[str, BaselineLike],
    rng: np.random.Generator,
) -> Arrays:
    """The feeds at the start of the path: floating inputs at their baseline, the others as they are."""
    given = baseline if isinstance(baseline, Mapping) else dict.fromkeys(fn.differentiable_inputs, baseline)
    unknown = [name for name in given if name not in fn.differentiable_inputs]
    if unknown:
        raise AnalysisError(f"a baseline for {unknown[0]!r}, which is no floating input of the model")
    start = dict(feeds)
    axes = channel_axes(fn.graph) if any(isinstance(value, str) for value in given.values()) else {}
    for name in fn.differentiable_inputs:
        axis = input_channel_axis(fn.graph, name, axes)
        start[name] = make_baseline(given.get(name, 0.0), feeds[name], fn.model.preprocessing, rng, axis)
    return start


class _Path:
    """The straight line of each sample, and the outputs at its ends."""

    def __init__(
        self,
        fn: Differentiable,
        feeds: Arrays,
        start: Arrays,
        target: TargetLike,
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        if batch_size < 1:
            raise AnalysisError(f"batch_size is at least 1, not {batch_size}")
        self.fn, self.end, self.start = fn, feeds, start
        self.batch_size, self.progress = batch_size, progress
        self.output, self.chosen, self.weights = explained(fn, feeds, target)
        self.output_name = as_target(target).output
        at_start = fn.gradients(start, self._target(np.arange(self.output.shape[0])), wrt=()).output
        self.difference = self.output.astype(np.float64) - at_start.astype(np.float64)

    def _target(self, samples: np.ndarray) -> Target:
        if self.weights is not None:
            return Target(self.output_name, weights=self.weights[samples])
        assert self.chosen is not None
        return Target(self.output_name, index=self.chosen[samples])

    def integrate(self, samples: np.ndarray, rule: str, steps: int) -> tuple[Arrays, int]:
        """The attributions of some samples {input: (n, *features)}, and the gradients it took for each."""
        nodes, weights = quadrature(rule, steps)
        names = self.fn.differentiable_inputs
        totals = {name: np.zeros(self.end[name][samples].shape, np.float64) for name in names}
        points = [(sample, node) for node in range(steps) for sample in range(samples.size)]
        for begin in range(0, len(points), self.batch_size):
            chunk = points[begin : begin + self.batch_size]
            rows = np.array([row for row, _ in chunk])
            alphas = nodes[[node for _, node in chunk]]
            gradients = self._gradients(samples[rows], alphas)
            for name in names:
                for row, (_, node), gradient in zip(rows, chunk, gradients[name], strict=True):
                    totals[name][row] += weights[node] * gradient
            if self.progress is not None:
                self.progress(begin + len(chunk), len(points))
        for name in names:
            totals[name] *= self.end[name][samples].astype(np.float64) - self.start[name][samples]
        return {name: total.astype(self.end[name].dtype) for name, total in totals.items()}, steps

    def _gradients(self, samples: np.ndarray, alphas: np.ndarray) -> Arrays:
        feeds = {}
        for name, end in self.end.items():
            if name in self.fn.differentiable_inputs:
                start = self.start[name][samples]
                along = alphas.astype(end.dtype).reshape(-1, *(1,) * (end.ndim - 1))
                feeds[name] = start + along * (end[samples] - start)
            else:
                feeds[name] = end[samples]
        return self.fn.gradients(feeds, self._target(samples)).gradients

    def delta(self, totals: Arrays) -> np.ndarray:
        """How far the sum of the attributions is from f(x) − f(x′), (N,)."""
        short: np.ndarray = np.sum([sample_sums(t) for t in totals.values()], axis=0) - self.difference
        return short


def explained(
    fn: Differentiable, feeds: Arrays, target: TargetLike
) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """The explained output (N,), and what fixes it at other points: classes (N,), or weights (N, …)."""
    wanted = as_target(target)
    found = fn.gradients(feeds, wanted, wrt=())
    name = wanted.output or fn.graph.outputs[0]
    if fn.graph.tensors[name].rank <= 2 and found.target is not None:
        return found.output, found.target, None
    y = fn.forward(feeds, [name])[name]
    seed = fn.seed(wanted, y.shape[0], feeds)
    return found.output, found.target, seed.cotangent(y)


def _like(inputs: Inputs, arrays: Arrays) -> Any:
    return arrays if isinstance(inputs, Mapping) else next(iter(arrays.values()))


def _completeness(difference: np.ndarray, totals: Arrays) -> Completeness:
    total = np.sum([sample_sums(array) for array in totals.values()], axis=0)
    absolute = np.sum([sample_sums(np.abs(array)) for array in totals.values()], axis=0)
    return measure(difference, total, absolute)
