"""Expected Gradients: Integrated Gradients averaged over baselines from a data set, estimated from random draws.

φ_i = E[(x_i − x′_i) · ∂f/∂x_i at x′ + α(x − x′)], over x′ from the background and α uniform in (0, 1). The draws are
stratified in α, and the background is gone through without repetition, again and again, while draws last: every pass
over it covers a narrow range of α. From a Differentiable, inputs and a background to that mean with its standard error.
Refuses a background that is not shaped like the inputs.
Source: Erion, Janizek, Sturmfels, Lundberg & Lee 2021, "Improving performance of deep learning models with axiomatic
attribution priors and expected gradients".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from analyzer.autodiff.request import OUTPUT, gradient_name, observe
from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.errors import AnalysisError, InputError, ShapeError
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import ALIKE
from analyzer.graph.graph import Tensor
from analyzer.methods.completeness import Completeness, sample_sums
from analyzer.methods.exporting import ExplainerGraph, Exported, column, rank_of
from analyzer.methods.numbers import generator, refuse_count
from analyzer.methods.paths.baselines import Dataset, numbers
from analyzer.methods.paths.exported import exported_path
from analyzer.methods.paths.fixed_target import Held, hold, in_batches
from analyzer.methods.paths.path_result import PathAttribution, path_attributions, rounding_of
from analyzer.methods.registry import method
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Inputs, Progress, Rng

Background = np.ndarray | Dataset | Mapping[str, np.ndarray | Dataset]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class ExpectedGradients(PathAttribution):
    """The result of `expected_gradients`. The attributions estimate a sum of f(x) − mean of f over the background.

    standard_error: of the attributions, like them.
    delta_error: (N,), the standard error of `delta`.
    samples: the number of draws. background: the number of baselines.
    Both errors come from the differences of neighbouring draws, which errs on the side of too large. Of fewer than nine
    draws they are raised by Student's factor, so that twice the error covers 95 of 100 cases. Few draws may all miss
    what matters: where `delta` shows it, both are raised. It does not show errors of several attributions that cancel
    in the sum: of steep functions, draw more than 20.
    """

    standard_error: Any
    delta_error: np.ndarray
    samples: int
    background: int

    @property
    def detail(self) -> str:
        """The number of draws."""
        return f"{self.samples} draws from {self.background} baselines"

    @property
    def sums_to(self) -> str:
        """The number that the attributions sum to, in words."""
        return "the difference from the mean output of the background"

    @property
    def remark(self) -> str:
        """How far chance moves the sum."""
        if all(self.passed):
            return ""
        error = f"{self.delta_error.max():.2g}"
        return f"a sum of draws, with a standard error of {error}: more samples bring it closer"


@dataclass(frozen=True)
class Draws:
    """What is evaluated, in this order: alphas, rows (N, S), rows into the background.

    weights (N, S): with which the squared difference of a draw from those before it counts for the variance of the sum.
    orders (N, S): of that difference: 1, from the draw before; 2, of the two differences among the last three.
    """

    alphas: np.ndarray
    rows: np.ndarray
    weights: np.ndarray
    orders: np.ndarray


def _export(explainer: ExplainerGraph, *, background: Background | None, samples: int, rng: Rng) -> Exported:
    background = _required(background)
    refuse_count("samples", samples, 2, 200)
    held = hold(explainer.bound)
    data = _background(held, background)
    names, op, graph = held.names, explainer.op, explainer.graph
    drawn = draw(generator(rng).spawn(1), len(data[names[0]]), samples)
    alphas, rows = drawn.alphas[0], drawn.rows[0]
    stored = {name: op.constant(data[name].astype(graph.tensors[name].dtype)) for name in names}

    def starts(op: Builder, numbers: Tensor) -> dict[str, Tensor]:
        places = op.Gather(op.constant(rows), numbers, axis=0)
        return {name: op.Unsqueeze(op.Gather(stored[name], places, axis=0), [1]) for name in names}

    def point(op: Builder, numbers: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, start in starts(op, numbers).items():
            x = graph.tensors[name]
            # In double precision as in Python, so that both decide alike near the kinks of a ReLU.
            end, begin = (op.Cast(one, to=onnx.TensorProto.DOUBLE) for one in (op.Unsqueeze(x, [0]), start))
            along = column(op, numbers, alphas, end, rank_of(x))
            point = op.Add(begin, op.Mul(along, op.Sub(end, begin)))
            found[name] = op.Cast(point, to=op.dtype_of(x))
        return found

    def finish(op: Builder, numbers: Tensor, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {
            name: op.Mul(op.Sub(op.Unsqueeze(graph.tensors[name], [0]), start), found[gradient_name(name)])
            for name, start in starts(op, numbers).items()
        }

    sums = explainer.repeated(samples, point, observe((), names), finish)
    attributions = {
        name: replace(op.Div(total, float(samples)), shape=graph.tensors[name].shape)
        for name, total in sums.items()
    }
    found = exported_path(
        explainer, graph, attributions, _exported_mean(explainer, names, stored, len(data[names[0]]))
    )
    return replace(found, row_dependent=True)


def _exported_mean(
    explainer: ExplainerGraph, names: Sequence[str], stored: Mapping[str, Tensor], size: int
) -> Tensor:
    """The mean score of the background for each sample, (N,)."""

    def point(op: Builder, numbers: Tensor) -> dict[str, Tensor]:
        found = {}
        for name in names:
            x = explainer.graph.tensors[name]
            shape = op.Concat(op.Shape(numbers), op.Shape(x), axis=0)
            found[name] = op.Expand(op.Unsqueeze(op.Gather(stored[name], numbers, axis=0), [1]), shape)
        return found

    def finish(op: Builder, numbers: Tensor, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {OUTPUT: found[OUTPUT]}

    total = explainer.repeated(size, point, observe((), ()), finish)[OUTPUT]
    return explainer.op.Div(total, float(size))


@method(
    "expected-gradients",
    export=_export,
    line="what each input adds, against a data set",
    caption="Expected Gradients",
    note="against a data set: red speaks for the class",
    source="Erion et al. 2021",
    cost="{samples} gradients (samples)",
    signed=True,
)
def expected_gradients(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    background: Background | None = None,
    *,
    samples: int = 200,
    rng: Rng = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    verify: bool = True,
) -> ExpectedGradients:
    """Average the gradient between the inputs and baselines drawn from a background, times their difference.

    inputs: (N, *features), or {input name: array}; integer inputs are held.
    target: see `Target`; None explains the class that is highest at the inputs.
    background: the baselines, (M, *features), or {input name: array} whose rows go together, in the model's own input
        units. Required.
    samples: draws for each input, at least 2, each of one gradient.
    rng: a Generator or a seed; each input has a stream of its own.
    batch_size: points evaluated at once.
    progress: called with (points done, points planned).
    Raises AnalysisError without a background, ShapeError for one that does not fit, InputError, TargetError,
    UnsupportedOp.
    Source: Erion et al. 2021.
    """
    background = _required(background)
    refuse_count("samples", samples, 2, 200)
    held = hold(differentiate(model, verify=verify).bind(inputs, target))
    data = _background(held, background)
    streams = generator(rng).spawn(held.samples)
    size = len(data[held.names[0]])
    drawn = draw(streams, size, samples)
    estimate = estimate_from(held, data, drawn, batch_size, progress)
    difference = held.output - _mean_output(held, data, batch_size)
    found = path_attributions(held, estimate.means, difference, samples)
    sums: Completeness = found["completeness"]
    stated = stated_errors(
        estimate, np.abs(sums.total - sums.output), rounding_of(held.output, difference), samples
    )
    errors = {name: error.astype(held.feeds[name].dtype) for name, error in stated.errors.items()}
    return ExpectedGradients(
        **found,
        samples=samples,
        standard_error=held.form(errors),
        delta_error=stated.sum_error,
        background=size,
    )


def draw(streams: list[np.random.Generator], size: int, samples: int) -> Draws:
    """The draws of each sample. size: of the background.

    Draws whose differences tell the variance stand one after the other, by α: those of one baseline where each has at
    least two, so that the difference between baselines, which cancels from the mean of whole passes, does not count;
    otherwise all. Second differences do not count a drift along the path, which stratification removes from the mean,
    either; of independent draws of variance σ² they have 6σ².
    """
    alphas, rows, weights, orders = (np.empty((len(streams), samples)) for _ in range(4))
    for n, stream in enumerate(streams):
        passes = [stream.permutation(size) for _ in range(-(-samples // size))]
        drawn = np.concatenate(passes)[:samples]
        strata = np.arange(samples)
        # Which baselines an unfinished pass has come to is chance: its draws are a group of their own.
        finished = strata < samples // size * size
        group = np.where(finished, drawn, size) if samples >= 2 * size else np.zeros(samples, int)
        order = np.lexsort((strata, group))
        _, first, counts = np.unique(group[order], return_index=True, return_counts=True)
        within, many = strata - np.repeat(first, counts), np.repeat(counts, counts)
        alphas[n] = ((strata + stream.random(samples)) / samples)[order]
        rows[n] = drawn[order]
        orders[n] = np.minimum(many - 1, 2)
        # A group of n draws has n − 2 second differences, or of two draws a first one; a draw that is alone is held
        # against the last one of another baseline.
        weights[n] = np.where(many == 2, 1.0, np.where(many == 1, 0.5, many / (6 * np.maximum(many - 2, 1))))
        weights[n, within < orders[n]] = 0.0
    return Draws(alphas, rows.astype(int), weights, orders.astype(int))


@dataclass(frozen=True)
class Estimate:
    """means, errors: {input name: (N, *features)}, of the attributions; sum_error (N,), of their sum. All float64."""

    means: Arrays
    errors: Arrays
    sum_error: np.ndarray


_BEYOND_CHANCE = 3.0
"""Standard errors of a sum, beyond which they are taken to be too small."""
_STUDENT = (6.48, 2.20, 1.62, 1.42, 1.31, 1.25, 1.21)
"""The 97.5 % quantiles of Student's distribution over that of the normal one, by degrees of freedom from 1. From nine
draws on the differences of neighbours err by more on the side of too large."""


def students(draws: int) -> float:
    """Return what an error that so many draws show is multiplied by, so that twice it covers 95 of 100 cases."""
    return _STUDENT[draws - 2] if draws - 2 < len(_STUDENT) else 1.0


def stated_errors(estimate: Estimate, delta: np.ndarray, rounding: np.ndarray, draws: int) -> Estimate:
    """Raise errors that few draws or the known sum show to be too small.

    delta (N,): how far the sum is off, in absolute value. rounding (N,): of the sum that is known. Beyond chance the
    sum's error is delta, and every attribution has at least its share of it, the signs of their errors being random.
    """
    factor = students(draws)
    sum_error = np.hypot(factor * estimate.sum_error, rounding)
    missed = np.where(delta > _BEYOND_CHANCE * sum_error, delta, 0.0)
    squares = {name: mean**2 for name, mean in estimate.means.items()}
    total = np.sum([sample_sums(square) for square in squares.values()], axis=0)
    count = sum(square[0].size for square in squares.values())
    errors = {}
    for name, square in squares.items():
        per_sample = (len(square), *(1,) * (square.ndim - 1))
        whole = total.reshape(per_sample)
        share = np.sqrt(np.divide(square, whole, out=np.full(square.shape, 1 / count), where=whole > 0))
        errors[name] = np.maximum(factor * estimate.errors[name], share * missed.reshape(per_sample))
    return Estimate(estimate.means, errors, np.maximum(sum_error, missed))


class _Running:
    """Of values drawn one after the other for each sample: their sum, and weighted squares of their differences."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.total, self.squares = np.zeros(shape), np.zeros(shape)
        self._before, self._slope = np.zeros(shape), np.zeros(shape)

    def add(self, n: int, value: np.ndarray, weight: float, order: int) -> None:
        """The next value of sample n."""
        slope = value - self._before[n]
        if weight:
            self.squares[n] += weight * (slope - self._slope[n] if order == 2 else slope) ** 2
        self.total[n] += value
        self._before[n], self._slope[n] = value, slope


def estimate_from(
    held: Held, background: Arrays, draws: Draws, batch_size: int, progress: Progress | None
) -> Estimate:
    """The mean over the draws of (x − x′) · gradient, with its standard error."""
    count = draws.alphas.shape[1]
    running = {name: _Running(held.feeds[name].shape) for name in held.names}
    summed = _Running((held.samples,))
    for batch in in_batches(held.samples * count, batch_size):
        ks, rows = np.divmod(batch, held.samples)
        terms = _terms(held, background, draws, ks, rows)
        totals = np.sum([sample_sums(term) for term in terms.values()], axis=0)
        for place, (k, n) in enumerate(zip(ks, rows, strict=True)):
            weight, order = draws.weights[n, k], draws.orders[n, k]
            for name, term in terms.items():
                running[name].add(n, term[place], weight, order)
            summed.add(n, totals[place], weight, order)
        if progress is not None:
            progress(int(batch[-1]) + 1, held.samples * count)
    return Estimate(
        {name: one.total / count for name, one in running.items()},
        {name: np.sqrt(one.squares) / count for name, one in running.items()},
        np.sqrt(summed.squares) / count,
    )


def _terms(held: Held, background: Arrays, draws: Draws, ks: np.ndarray, rows: np.ndarray) -> Arrays:
    """(x − x′) · gradient at some draws, {input name: (n, *features)}."""
    points, spans = {}, {}
    for name in held.names:
        x = held.feeds[name][rows].astype(np.float64)
        start = background[name][draws.rows[rows, ks]]
        along = draws.alphas[rows, ks].reshape(-1, *(1,) * (x.ndim - 1))
        spans[name] = x - start
        points[name] = start + along * spans[name]
    gradients = held.finite_gradients(points, rows).gradients
    return {name: spans[name] * gradients[name] for name in held.names}


def _required(background: Background | None) -> Background:
    """Return the background. Raises AnalysisError where there is none."""
    if background is None:
        raise AnalysisError(
            "expected_gradients averages over a data set of baselines. Fix: give it as background=array "
            "(--background FILE)"
        )
    return background


def _background(held: Held, background: Background) -> Arrays:
    """The background of every attributed input, as many rows of each."""
    given = background if isinstance(background, Mapping) else {held.names[0]: background}
    wrong = [name for name in (*given, *held.names) if (name in given) != (name in held.names)]
    if wrong:
        raise InputError(
            f"the background names the inputs {', '.join(given)}; attributed are {', '.join(held.names)}. Fix: give "
            "a dict with an array for each of these"
        )
    arrays = {}
    for name in held.names:
        one = given[name]
        array = numbers(one.samples if isinstance(one, Dataset) else one, f"the background of {name!r}")
        features = held.feeds[name].shape[1:]
        if array.ndim == 0 or array.shape[1:] != features or not len(array):
            wanted = ", ".join(["M", *map(str, features)])
            raise ShapeError(
                f"the background of {name!r} has shape {array.shape}, expected ({wanted}). Fix: give an array of M "
                "inputs of that shape"
            )
        arrays[name] = array
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ShapeError(f"the inputs of the background have different numbers of rows: {counts}. {ALIKE}")
    return arrays


def _mean_output(held: Held, background: Arrays, batch_size: int) -> np.ndarray:
    """The output of each sample, (N,), averaged over the whole background."""
    size = len(background[held.names[0]])
    totals = np.zeros(held.samples)
    # Where nothing else is fed, one forward pass of a baseline serves every sample.
    shared = set(held.names) == set(held.fn.graph.inputs)
    for batch in in_batches(size, batch_size):
        points = {name: array[batch] for name, array in background.items()}
        y = held.fn.forward(points, held.tensors) if shared else None
        for n in range(held.samples):
            rows = np.full(len(batch), n)
            totals[n] += (held.outputs(points, rows) if y is None else held.scalars(y, rows)).sum()
    return totals / size
