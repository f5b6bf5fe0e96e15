"""Integrated Gradients: the gradient integrated along the straight line from a baseline to the input.

From a Differentiable, inputs, a target and one or several baselines to attributions of the inputs, or of tensors within
the network, with the error of their sum and, where a tolerance is asked for, that predicted of their map. Refuses
rules, baselines and points that there are not.
Source: Sundararajan, Taly & Yan 2017, "Axiomatic Attribution for Deep Networks".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.base import Arrays, Inputs
from analyzer.backends.planning import plan_batch
from analyzer.errors import AnalysisError
from analyzer.memory import budget
from analyzer.methods.baselines import BaselineLike, baseline_feeds
from analyzer.methods.full_grad_result import chosen_input
from analyzer.methods.held import hold
from analyzer.methods.lines import Lines
from analyzer.methods.path_result import PathAttributions, path_attributions
from analyzer.methods.quadrature import quadrature
from analyzer.methods.refinement import MAP_SLACK, Goal, Refined, refine
from analyzer.methods.tokens import Names, plot_token_scores, scored_tokens, token_scores
from analyzer.points import cut, find_points
from analyzer.target import TargetLike
from analyzer.tokens import embedded_tokens

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analyzer.figures import ScoredTokens

Progress = Callable[[int, int], None]
Baselines = BaselineLike | Mapping[str, BaselineLike]

ADAPTIVE = "adaptive"
"""The rule of a result that was refined to a tolerance."""
AT_ONCE = 16
"""Points evaluated together, where memory allows: more are no faster."""
LEAST_BUDGET = 3


@dataclass(frozen=True)
class IntegratedGradients(PathAttributions):
    """The attributions sum to f(x) − f(x′), which `completeness` holds them to, up to `delta` (N,).

    converged (N,): whether the tolerance asked for is met, in the sum and in the map; True without one. spent (N,):
    gradients computed for each sample, of which `evaluations` is the largest. baseline: where the path began, in the
    form of the inputs; a list of several. standard_error: of the average over several baselines, like the attributions.
    interrupted: an interrupt ended it before its time. embedded: which of the tensors are the vectors of tokens.
    Refined to a tolerance, all (N,): interval_error, the sum of the absolute errors of the intervals' own sums, in the
    units of the output; scatter, the root of the sum of their squares: what `delta` would be were their signs random;
    map_error, the predicted error of the map, relative L2; map_change, how far the last refinement moved it.
    """

    converged: np.ndarray
    spent: np.ndarray
    baseline: Any
    steps: int
    rule: str
    interrupted: bool = False
    standard_error: Any = None
    interval_error: np.ndarray | None = None
    scatter: np.ndarray | None = None
    map_error: np.ndarray | None = None
    map_change: np.ndarray | None = None
    embedded: tuple[str, ...] = ()

    def token_scores(self, of: str | None = None) -> np.ndarray:
        """(N, T): the attribution of each token, summed over its vector. of: one of `embedded`, the first by default.

        Raises AnalysisError where the attributions are not of tokens' vectors.
        """
        if not self.embedded or (of is not None and of not in self.embedded):
            raise AnalysisError(
                f"no tokens are embedded in {of or ', '.join(self.channel_axes)}: at='embedding'"
            )
        name = of or self.embedded[0]
        return token_scores(
            self.attributions[name] if isinstance(self.attributions, Mapping) else self.attributions
        )

    def texts(
        self, tokens: Names, *, of: str | None = None, captions: Sequence[str] = ()
    ) -> list[ScoredTokens]:
        """Each sample as coloured text, for `plot_tokens` and `tokens_html`. tokens, captions: see `scored_tokens`."""
        return scored_tokens(self.token_scores(of), tokens, self.completeness.output, captions)

    def plot(self, inputs: Any = None, *, of: str | None = None, features: Names | None = None) -> Figure:
        """The attributions, summed over channels, as `FullGrad.plot` draws its complete map.

        Of embedded tokens coloured text: features are the tokens, T names or a row of them for each sample. Without
        names a bar for each token.
        """
        name = chosen_input(self.channel_axes, of)
        if name not in self.embedded:
            return super().plot(inputs, of=of, features=features)
        return plot_token_scores(self.token_scores(name), features, self.completeness.output, name)


def integrated_gradients(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: Baselines = 0.0,
    at: str | Sequence[str] | None = None,
    baseline_inputs: Inputs | None = None,
    steps: int = 50,
    rule: str = "gauss-legendre",
    tolerance: float | None = None,
    map_tolerance: float | None = None,
    max_evaluations: int = 1024,
    batch_size: int | None = None,
    rng: np.random.Generator | int | None = None,
    progress: Progress | None = None,
) -> IntegratedGradients:
    """Integrate the gradient along the straight line from the baseline to the inputs.

    inputs: (N, *features), or {input name: array}, in the model's own input units; integer inputs are held.
    target: see `Target`; None explains the class that is highest at the inputs, all along the path.
    baseline: what `make_baselines` takes: a number, "black", "white", "mean", "uniform", "gaussian", "blurred", an
        array that broadcasts to the inputs, a Dataset, or a list of these, over which the attributions are averaged;
        or one of these per input name. rng: a Generator or seed for random ones.
    at: attribute tensors within the network instead: the ONNX name of one, the path of a module, "embedding", or a
        sequence of these; `baseline` then is one of theirs, unless `baseline_inputs` gives inputs, such as padding
        tokens, whose values there are the baseline.
    steps, rule: the quadrature, without a tolerance. One of `quadrature.RULES`.
    tolerance: refine until |delta| is within this share of |f(x) − f(x′)| for each sample, no matter of luck (see
        refinement.py), and the predicted relative L2 error of the map within map_tolerance, by default five times as
        much; up to `max_evaluations` gradients a path. `converged` says how it ended.
    batch_size: points evaluated at once, by default as many as memory allows, at most 16.
    progress: called with (gradients computed, gradients planned or foreseen). An interrupt (Ctrl-C) ends the
        computation with what is known by then.
    Raises InputError, ShapeError, TargetError, UnknownTensor, UnsupportedOp; AnalysisError for options out of range,
    or where a gradient on the path is not finite.
    Source: Sundararajan, Taly & Yan 2017, eq. 1; within the network, Dhamdhere, Sundararajan & Yan 2018, section 2.
    """
    quadrature(rule, steps)
    goal = _goal(tolerance, map_tolerance, max_evaluations)
    whole = differentiate(model)
    rng = np.random.default_rng(rng)
    fn, feeds, starts, names = _ends(whole, inputs, baseline, at, baseline_inputs, rng)
    held = hold(fn, feeds, target, names)
    if batch_size is None:
        batch_size = plan_batch(fn, held.names, feeds, held.target(np.arange(held.samples)), at_most=AT_ONCE)
    elif batch_size < 1:
        raise AnalysisError(f"batch_size is at least 1, not {batch_size}")
    lines = Lines(held, starts, batch_size)
    sums, interrupted = _sums(lines, goal, (rule, steps), progress)
    single = (at is None and not isinstance(inputs, Mapping)) or (at is not None and len(names) == 1)
    form: Inputs = feeds[names[0]] if single else feeds
    found = path_attributions(held, form, lines.arrays(sums.mean), sums.difference, int(sums.spent.max()))
    error = sums.standard_error()
    begun = [{name: start[name] for name in names} for start in starts]
    given = [start[names[0]] if single else start for start in begun]
    result = IntegratedGradients(
        **vars(found),
        converged=sums.converged,
        spent=sums.spent,
        baseline=given[0] if len(given) == 1 else given,
        steps=steps if goal is None else int(sums.spent.max()),
        rule=rule if goal is None else ADAPTIVE,
        interrupted=interrupted,
        standard_error=None if error is None else _typed(lines, error, single),
        embedded=() if at is None else tuple(name for name in embedded_tokens(whole.graph) if name in names),
    )
    return result if goal is None else _with_errors(result, sums.stated())


def _with_errors(result: IntegratedGradients, stated: Mapping[str, np.ndarray]) -> IntegratedGradients:
    """The result with what a refinement knows of its errors."""
    return replace(
        result,
        interval_error=stated["interval_error"],
        scatter=stated["scatter"],
        map_error=stated["map_error"],
        map_change=stated["map_change"],
    )


def _goal(tolerance: float | None, map_tolerance: float | None, max_evaluations: int) -> Goal | None:
    """What a refinement must meet; None without a tolerance. Raises AnalysisError for what is out of range."""
    if tolerance is None:
        if map_tolerance is not None:
            raise AnalysisError("a map_tolerance goes with a tolerance")
        return None
    for share in (tolerance, map_tolerance):
        if share is not None and not share > 0:
            raise AnalysisError(f"the tolerance is a share above 0, not {share}")
    if max_evaluations < LEAST_BUDGET:
        raise AnalysisError(f"a tolerance takes at least {LEAST_BUDGET} evaluations, not {max_evaluations}")
    return Goal(tolerance, MAP_SLACK * tolerance if map_tolerance is None else map_tolerance, max_evaluations)


def _ends(
    fn: Differentiable,
    inputs: Inputs,
    baseline: Baselines,
    at: str | Sequence[str] | None,
    baseline_inputs: Inputs | None,
    rng: np.random.Generator,
) -> tuple[Differentiable, Arrays, list[Arrays], tuple[str, ...]]:
    """The model that is followed, its feeds at the end and at the starts of the paths, and what is attributed."""
    feeds = fn.check_inputs(inputs)
    if at is None:
        if baseline_inputs is not None:
            raise AnalysisError(
                "baseline_inputs go with `at`: for the inputs themselves, they are the baseline"
            )
        return fn, feeds, baseline_feeds(fn, feeds, baseline, rng), fn.roots()
    points = find_points(fn, at)
    rest = cut(fn, points)
    end = {**fn.forward(feeds, points), **{name: feeds[name] for name in rest.graph.inputs if name in feeds}}
    if baseline_inputs is None:
        given = baseline if isinstance(baseline, Mapping) else dict.fromkeys(points, baseline)
        beside = [name for name in given if name not in points]
        if beside:
            raise AnalysisError(f"a baseline for {beside[0]!r}; attributed are {', '.join(points)}")
        starts = baseline_feeds(rest, end, given, rng)
        held = [name for name in rest.differentiable_inputs if name not in points]
        return rest, end, [{**start, **{name: end[name] for name in held}} for start in starts], points
    if not (isinstance(baseline, (int, float)) and baseline == 0):
        raise AnalysisError("give a baseline of the points or baseline_inputs, not both")
    before = fn.forward(baseline_inputs, points)
    start = {name: np.broadcast_to(before[name], end[name].shape) for name in points}
    return rest, end, [{**end, **start}], points


class _Sums:
    """What the lines of every sample come to, one line after the other: means over its baselines."""

    def __init__(self, lines: Lines) -> None:
        held, self.baselines = lines.held, len(lines.starts)
        self.mean = np.zeros((held.samples, lines.size))
        self.squares = np.zeros_like(self.mean) if self.baselines > 1 else None
        self.difference = np.zeros(held.samples)
        self.spent = np.zeros(held.samples, int)
        self.converged = np.ones(held.samples, bool)
        self._seen = np.zeros(held.samples, int)
        self._numbers = {name: np.zeros(held.samples) for name in _STATED}

    def add(self, line: int, found: Refined) -> None:
        """One line. Welford's recurrence keeps the variance over baselines."""
        sample = line // self.baselines
        self._seen[sample] += 1
        total = found.total[0]
        before = total - self.mean[sample]
        self.mean[sample] += before / self._seen[sample]
        if self.squares is not None:
            self.squares[sample] += before * (total - self.mean[sample])
        self.difference[sample] += found.difference[0] / self.baselines
        self.spent[sample] += found.evaluations
        self.converged[sample] &= bool(found.converged[0])
        size = float(np.linalg.norm(total)) / self.baselines
        for name, numbers in self._numbers.items():
            number = float(getattr(found, name)[0])
            numbers[sample] += number * size if name in _RELATIVE else number / self.baselines

    def missing(self, line: int, difference: float) -> None:
        """A line that was not begun: nothing of its difference is attributed."""
        sample = line // self.baselines
        self.difference[sample] += difference / self.baselines
        self.mean[sample] *= self._seen[sample] / (self._seen[sample] + 1)
        self._seen[sample] += 1
        self.converged[sample] = False

    def standard_error(self) -> np.ndarray | None:
        """Of the mean over baselines, (N, D); None of a single one."""
        if self.squares is None:
            return None
        error: np.ndarray = np.sqrt(self.squares / (self.baselines * (self.baselines - 1)))
        return error

    def stated(self) -> dict[str, np.ndarray]:
        """The numbers of a refinement. Errors of maps of several baselines are added, which errs on the safe side."""
        size = np.linalg.norm(self.mean, axis=1)
        return {
            name: np.divide(numbers, size, out=np.zeros_like(size), where=size > 0)
            if name in _RELATIVE
            else numbers
            for name, numbers in self._numbers.items()
        }


_RELATIVE = ("map_error", "map_change")
_STATED = ("interval_error", "scatter", *_RELATIVE)


def _sums(
    lines: Lines, goal: Goal | None, fixed: tuple[str, int], progress: Progress | None
) -> tuple[_Sums, bool]:
    """Integrate all lines, as many at a time as their gradients fit into memory."""
    sums = _Sums(lines)
    kept = 2 if goal is None else goal.budget
    size = budget(lines.held.fn.max_memory) // (kept * lines.size * max(lines.item_bytes, 8))
    groups = [
        range(begin, min(begin + max(1, size), lines.count)) for begin in range(0, lines.count, max(1, size))
    ]
    done = 0
    for place, numbers in enumerate(groups):
        tell = None if progress is None else _ahead(progress, done, len(numbers), lines.count - numbers.start)
        found, interrupted = _group(lines, numbers, goal, fixed, tell)
        for number, state in zip(numbers, found, strict=True):
            sums.add(number, state)
        done += sum(state.evaluations for state in found)
        if interrupted:
            left = [number for numbers in groups[place + 1 :] for number in numbers]
            for number, difference in zip(left, _differences(lines, left), strict=True):
                sums.missing(number, difference)
            return sums, True
    if progress is not None:
        progress(done, done)
    return sums, False


def _group(
    lines: Lines, numbers: range, goal: Goal | None, fixed: tuple[str, int], tell: Progress | None
) -> tuple[list[Refined], bool]:
    if goal is not None:
        return refine(lines, numbers, goal, tell)
    return _by_rule(lines, numbers, *fixed, tell)


def _by_rule(
    lines: Lines, numbers: range, rule: str, steps: int, tell: Progress | None
) -> tuple[list[Refined], bool]:
    """By a fixed quadrature, its nodes gone through evenly: an interrupt leaves a thinner one of the whole path."""
    nodes, weights = quadrature(rule, steps)
    order = np.argsort([_reversed_bits(k) for k in range(steps)], kind="stable")
    totals = np.zeros((len(numbers), lines.size))
    mass, spent = np.zeros(len(numbers)), np.zeros(len(numbers), int)
    differences = _differences(lines, numbers)
    wanted = [(number, node) for node in order for number in numbers]
    interrupted = False
    try:
        points = lines.evaluate([(number, nodes[node]) for number, node in wanted])
        for (number, node), point in zip(wanted, points, strict=True):
            row = number - numbers.start
            totals[row] += weights[node] * point.gradient[0]
            mass[row] += weights[node]
            spent[row] += 1
            if tell is not None:
                tell(int(spent.sum()), len(wanted))
    except KeyboardInterrupt:
        interrupted = True
    found = []
    for row, number in enumerate(numbers):
        mean = totals[row] / mass[row] if mass[row] else totals[row]
        total = (mean * lines.direction(number))[None]
        none = np.zeros(1)
        difference = differences[row : row + 1]
        delta = total.sum(axis=1) - difference
        whole = np.array([spent[row] == steps])
        found.append(Refined(total, difference, delta, none, none, none, none, int(spent[row]), whole))
    return found, interrupted


def _differences(lines: Lines, numbers: Sequence[int]) -> np.ndarray:
    """f(x) − f(x′) of some lines, by forward passes at their starts."""
    held, baselines = lines.held, len(lines.starts)
    found = np.zeros(len(numbers))
    for begin in range(0, len(numbers), lines.batch_size):
        part = np.asarray(numbers[begin : begin + lines.batch_size])
        rows, which = np.divmod(part, baselines)
        points = {
            name: np.stack([lines.starts[k][name][row] for k, row in zip(which, rows, strict=True)])
            for name in held.names
        }
        found[begin : begin + len(part)] = held.output[rows].astype(np.float64) - held.outputs(points, rows)
    return found


def _reversed_bits(number: int) -> float:
    """Van der Corput's sequence: every beginning of it lies evenly in [0, 1)."""
    value, half = 0.0, 0.5
    while number:
        number, bit = divmod(number, 2)
        value += bit * half
        half /= 2
    return value


def _ahead(progress: Progress, done: int, group: int, left: int) -> Progress:
    """Progress of a group of lines as that of all: those to come take as long as these."""

    def tell(now: int, planned: int) -> None:
        progress(done + now, done + planned * left // group)

    return tell


def _typed(lines: Lines, vectors: np.ndarray, single: bool) -> Any:
    """Vectors in the form and the precision of the attributions."""
    held = lines.held
    arrays = {name: array.astype(held.feeds[name].dtype) for name, array in lines.arrays(vectors).items()}
    return arrays[held.names[0]] if single else arrays
