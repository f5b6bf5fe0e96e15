"""Conductance: what flows through units within a network while the input moves from a baseline to where it is.

From a Differentiable, inputs, a target and tensors within the network to attributions of every element y of these:
∫ ∂F/∂y · dy along the straight line in the *input*, so that units are credited for the values that inputs bring them
to. It is a Stieltjes integral: between two points, the mean gradient times the change of y. Values and gradients at y
suffice for that, and the network before y needs no derivative. Refuses rules and tensors that there are not.
Source: Dhamdhere, Sundararajan & Yan 2018, "How Important Is a Neuron?".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from analyzer.autodiff.sweep import active_tensors
from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.batching.planning import plan_batch
from analyzer.backends.bound import Bound
from analyzer.backends.inner_tensors import cut
from analyzer.deprecation import renamed
from analyzer.errors import AnalysisError
from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.graph.precision import epsilon
from analyzer.graph.samples.arrangement import PLAIN
from analyzer.methods.completeness import sample_sums
from analyzer.methods.exporting import Hosted
from analyzer.methods.integrated_gradients import ADAPTIVE, AT_ONCE, integrated_gradients
from analyzer.methods.numbers import generator, refuse_count
from analyzer.methods.paths.ends import Baselines, path_ends
from analyzer.methods.paths.fixed_target import Held, hold
from analyzer.methods.paths.integration import Sums, differences, evenly, integrate_groups, unrefined
from analyzer.methods.paths.line_result import LineAttribution
from analyzer.methods.paths.lines import Evaluated, Lines, Point, arrays_of, mean_gradient, vectors
from analyzer.methods.paths.path_result import completeness_of, rounding_of
from analyzer.methods.paths.probes import Probe, beyond_tangents
from analyzer.methods.paths.refinement import Refined, as_goal, refine
from analyzer.methods.paths.top_k import held_of_rank, joined
from analyzer.methods.registry import method
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Inputs, Names, Progress, Rng

_GRADIENT: Mapping[str, Callable[[Point, Point], np.ndarray]] = {
    "trapezoid": mean_gradient,
    "left": lambda a, b: a.gradient,
    "right": lambda a, b: b.gradient,
}
RULES = tuple(_GRADIENT)
ConductanceRule = Literal["trapezoid", "left", "right"]
"""Where an interval takes its gradient: at both its ends, at that nearer the baseline, at that nearer the input."""


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Conductance(LineAttribution):
    """The result of `conductance`: attributions like the tensors of `wrt`, (N, *shape), in units of the output.

    beside: {input name: (N, *features)}, what reaches the output past these tensors, as through a skip connection,
        attributed to the inputs; empty where every path leads through them. Both together sum to f(x) − f(x′).
    """

    beside: Arrays

    @property
    def stated(self) -> dict[str, Any]:
        """The numbers of a line, and the sums of what passes the tensors."""
        if np.ndim(self.output) == 2:
            return super().stated
        sums = {name: sample_sums(array).tolist() for name, array in self.beside.items()}
        return {**super().stated, "beside": sums}


@renamed(at="wrt")
@method(
    "conductance",
    export=Hosted(
        "it follows inner tensors along a path that is refined",
        "export integrated-gradients with wrt= a layer",
    ),
    line="what units within the network add, from a baseline",
    caption="Conductance",
    note="of units within the network: red speaks for the class, blue against it",
    source="Dhamdhere, Sundararajan & Yan 2018, definition 2",
    cost="{steps} gradients (steps)",
    signed=True,
    path="along",
    ranked=True,
    like=integrated_gradients,
)
def conductance(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Names | None = None,
    baseline: Baselines = 0.0,
    along: Names | None = None,
    baseline_inputs: Inputs | None = None,
    steps: int = 50,
    rule: ConductanceRule = "trapezoid",
    tolerance: float | None = None,
    map_tolerance: float | None = None,
    max_evaluations: int = 1024,
    batch_size: int | None = None,
    rng: Rng = 0,
    progress: Progress | None = None,
    verify: bool = True,
) -> Conductance:
    """Integrate ∂F/∂y · dy over the elements y of tensors, while the input moves from the baseline to the inputs.

    inputs, target: as `integrated_gradients` takes them.
    wrt: the tensors whose units are attributed: ONNX names, or the paths of modules. Required. The conductance of a
        unit, or of a channel, is the sum of its elements.
    baseline: as `integrated_gradients` takes it.
    along: tensors along which the path runs instead of along the inputs, such as "embedding" where these are tokens;
        `baseline` is then one of theirs, unless `baseline_inputs` is given.
    baseline_inputs: inputs whose values at the tensors of `along` are the baseline.
    steps: equidistant points, both ends among them, without a tolerance.
    rule: where an interval takes its gradient: at both ends, at the end nearer the baseline, or nearer the input.
    tolerance, map_tolerance, max_evaluations, batch_size, rng, progress: as `integrated_gradients` takes them.
    Raises InputError, ShapeError, TargetError, UnknownTensor, UnsupportedOp; AnalysisError without `wrt`, for options
    out of range, or where a gradient on the path is not finite.
    Source: Dhamdhere, Sundararajan & Yan 2018, definition 2 and, for the sum of a layer, section 2.1.
    """
    if wrt is None:
        raise AnalysisError(
            "conductance is that of units within the network. Fix: name a module or a tensor, as in wrt='layer1' "
            "(--wrt layer1)"
        )
    if rule not in RULES:
        raise AnalysisError(f"unknown rule {rule!r}. Fix: choose from {', '.join(RULES)}")
    if isinstance(steps, bool) or not isinstance(steps, (int, np.integer)) or steps < 2:
        raise AnalysisError(
            f"conductance needs at least 2 steps, the ends of the path, got {steps}. Fix: give steps=50"
        )
    goal = as_goal(tolerance, map_tolerance, max_evaluations)
    fn, feeds, starts, moved = path_ends(
        differentiate(model, verify=verify),
        inputs,
        baseline,
        along,
        baseline_inputs,
        generator(rng),
    )
    held = hold(fn.bind(feeds, target, several=True), moved)
    passages = _passages(held, starts, fn.roots(wrt), batch_size)

    def group(numbers: range, tell: Progress | None) -> tuple[list[Refined], bool]:
        if goal is not None:
            return refine(passages, numbers, goal, tell)
        return _by_rule(passages, numbers, rule, steps, tell)

    # Of every point, its values and its gradients.
    vectors_kept = (1 + passages.lines.targets) * (steps if goal is None else goal.budget)
    line_bytes = vectors_kept * passages.size * passages.item_bytes
    sums, interrupted = integrate_groups(passages.lines, passages.size, line_bytes, group, progress)
    how = (steps, rule) if goal is None else (sums.most, ADAPTIVE)
    results = [_result(passages, sums, k, *how, interrupted) for k in range(passages.lines.targets)]
    return results[0] if held.output.ndim == 1 else joined(results)


def _result(passages: Passages, sums: Sums, k: int, steps: int, rule: str, interrupted: bool) -> Conductance:
    """The result of the k-th class of each sample."""
    error, own = sums.standard_error(k), held_of_rank(passages.lines.held, k)
    totals, difference = passages.arrays(sums.mean[:, k]), sums.difference[:, k]
    return Conductance(
        attributions=passages.attributed(totals),
        completeness=completeness_of(difference, totals, rounding_of(own.output, difference)),
        evaluations=sums.most,
        output=own.output,
        target=own.chosen,
        channel_axes=passages.channel_axes,
        wrt=tuple(passages.channel_axes),
        beside={name: totals[name] for name in passages.beside},
        converged=sums.converged[:, k] & (rule == ADAPTIVE),
        spent=sums.spent,
        steps=steps,
        rule=rule,
        interrupted=interrupted,
        standard_error=None if error is None else passages.attributed(passages.arrays(error)),
        **(sums.stated(k) if rule == ADAPTIVE else {}),
        arrangement=passages.rest.arrangement,
    )


@dataclass(frozen=True, eq=False)
class Passages:
    """Paths of tensors within the network, while the inputs go along lines.

    points: the tensors; beside: the inputs that reach the target past them. The vector of a sample is both, one after
    the other. rest: the network behind the points. ends: what is fed to it at the ends of the lines.
    """

    lines: Lines
    rest: Differentiable
    points: tuple[str, ...]
    beside: tuple[str, ...]
    ends: Arrays

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors of a sample's vector."""
        return (*self.points, *self.beside)

    @cached_property
    def size(self) -> int:
        """D: the numbers of a sample's vector."""
        return sum(self.ends[name][0].size for name in self.names)

    @cached_property
    def item_bytes(self) -> int:
        """Of a number of the vector."""
        return max(self.ends[name].itemsize for name in self.names)

    @property
    def channel_axes(self) -> dict[str, int]:
        """{point: axis} of the channels, which a picture sums over."""
        graph = self.lines.held.fn.graph
        known = channel_axes(graph)
        return {name: input_channel_axis(graph, name, known) for name in self.points}

    def evaluate(self, wanted: Sequence[tuple[int, float]], *, open_ends: bool = False) -> Iterator[Point]:
        """The points at (line, alpha), in their order, each with the values of the vector."""
        return self.lines.each(wanted, self._found, open_ends=open_ends)

    def area(self, a: Point, b: Point) -> np.ndarray:
        """The integral of ∂F/∂y · dy from a to b by a trapezoid, (K, D)."""
        area: np.ndarray = mean_gradient(a, b) * _change(a, b)
        return area

    def probes(self, wanted: Sequence[tuple[int, float]]) -> Iterator[Probe]:
        """The outputs and the values of the vector at (line, alpha), in their order."""
        return self.lines.each_probe(wanted, self._foretold)

    def unforeseen(self, line: int, probe: Probe, a: Point, b: Point) -> np.ndarray:
        """How far the output at a probe is from what the points around it allow, (K,)."""
        if not (a.finite and b.finite):
            return np.zeros(self.lines.targets)
        before, behind = _change(a, probe), _change(probe, b)
        tangents = (a.output + a.gradient @ before, b.output - b.gradient @ behind)
        change = np.abs(_jump(a, b)) @ (np.abs(before) + np.abs(behind))
        return beyond_tangents(probe.output, tangents, change)

    def travel(self, a: Point, b: Point, weights: np.ndarray) -> np.ndarray:
        """How far the vector moves from a to b, (K,), elements by weights (K, D) and but for their rounding."""
        values = np.maximum(np.abs(_valued(a)), np.abs(_valued(b))).astype(np.float64)
        rounding = 4 * epsilon(_valued(a).dtype) * values
        moved: np.ndarray = weights @ np.maximum(np.abs(_change(a, b)) - rounding, 0.0)
        return moved

    def unseen(self, a: Point, m: Point, b: Point) -> np.ndarray:
        """The error, L2, (K,), that trapezoids leave where one half of an interval holds all the change of the vector.

        One trapezoid and two then are the same, and their difference shows nothing.
        """
        changes = [np.abs(_change(*ends)) for ends in ((a, m), (m, b))]
        whole = changes[0] + changes[1]
        apart = np.divide(changes[0] - changes[1], whole, out=np.zeros_like(whole), where=whole > 0)
        jumps = [np.abs(_jump(*ends)) for ends in ((a, m), (m, b))]
        left = apart**2 * (jumps[0] * changes[0] + jumps[1] * changes[1]) / 2
        found: np.ndarray = np.linalg.norm(left, axis=1)
        return found

    def rounding(self, points: Sequence[Point]) -> np.ndarray:
        """The error of the map, L2, (K,), by the rounding of values, of which the changes are differences."""
        sizes = [
            np.abs(point.gradient * _valued(point).astype(np.float64)) for point in points if point.finite
        ]
        ulp = epsilon(_valued(points[0]).dtype)
        found: np.ndarray = ulp * np.linalg.norm(np.max(sizes, axis=0), axis=1)
        return found

    def scales(self, line: int) -> bool:
        """Whether the inputs of a path are its end times α."""
        return self.lines.scales(line)

    def direction(self, line: int) -> np.ndarray:
        """Areas are whole: they take the change of the vector themselves."""
        return np.ones(self.size)

    def arrays(self, numbers: np.ndarray) -> Arrays:
        """Vectors (n, D) as {name: (n, *shape)}, in the precision of the tensors."""
        found = arrays_of(numbers, {name: self.ends[name].shape[1:] for name in self.names})
        return {name: array.astype(self.ends[name].dtype) for name, array in found.items()}

    def attributed(self, arrays: Arrays) -> Any:
        """What belongs to the points: an array for a single one."""
        return (
            arrays[self.points[0]] if len(self.points) == 1 else {name: arrays[name] for name in self.points}
        )

    def _foretold(self, points: Arrays, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        held = self.lines.held
        here = held.bound.at(points, rows)
        values = here.fn.forward(here.feeds, (*self.points, *held.tensors))
        feeds = {
            **here.feeds,
            **(self.rest.arrangement or PLAIN).all_first({n: values[n] for n in self.points}),
        }
        return held.scalars(values, rows, "on the path"), vectors(feeds, self.names, 1)[:, 0]

    def _found(self, points: Arrays, rows: np.ndarray) -> Evaluated:
        there = _behind(self.rest, self.lines.held.bound.at(points, rows), self.points)
        found = there.gradients(self.names, defined=False)
        gradients = vectors(found.gradients, self.names, self.lines.targets)
        return found.output, gradients, vectors(there.feeds, self.names, 1)[:, 0]


def _passages(
    held: Held, starts: Sequence[Arrays], points: tuple[str, ...], batch_size: int | None
) -> Passages:
    """The paths of the points, and how many of their places are evaluated at once."""
    rest = cut(held.fn, points)
    before = [name for name in held.tensors if name not in rest.graph.tensors]
    if before:
        raise AnalysisError(
            f"{before[0]!r}, which is explained, is not computed from {', '.join(points)}. Fix: name in wrt= (--at) a "
            "tensor that it is computed from"
        )
    beside = tuple(
        name
        for name in held.names
        if name in rest.graph.inputs
        and name not in points
        and not active_tensors(rest.graph, [name]).isdisjoint(held.tensors)
    )
    ends = _behind(rest, held.bound, points)
    if batch_size is None:
        batch_size = plan_batch(ends, (*points, *beside), at_most=AT_ONCE)
    else:
        refuse_count("batch_size", batch_size, 1, 16)
    return Passages(Lines(held, starts, batch_size), rest, points, beside, ends.feeds)


def _behind(rest: Differentiable, whole: Bound, points: tuple[str, ...]) -> Bound:
    """The network behind the points at the values that they have where the whole network is bound."""
    moves = rest.arrangement or PLAIN
    known = {**whole.feeds, **moves.all_first(whole.fn.forward(whole.feeds, points))}
    return whole.on(rest, {name: known[name] for name in rest.graph.inputs})


def _by_rule(
    passages: Passages, numbers: range, rule: str, steps: int, tell: Progress | None
) -> tuple[list[Refined], bool]:
    """At equidistant points, both ends first, then evenly: an interrupt leaves fewer of them, of the whole path."""
    alphas = np.linspace(0, 1, steps)[[0, steps - 1, *(1 + evenly(steps - 2))]]
    wanted = [(number, alpha) for alpha in alphas for number in numbers]
    seen: dict[int, list[Point]] = {number: [] for number in numbers}
    interrupted = False
    try:
        for done, ((number, _), point) in enumerate(zip(wanted, passages.evaluate(wanted), strict=True), 1):
            seen[number].append(point)
            if tell is not None:
                tell(done, len(wanted))
    except KeyboardInterrupt:
        interrupted = True
    found = []
    for number, difference in zip(numbers, differences(passages.lines, numbers), strict=True):
        points = sorted(seen[number], key=lambda point: point.alpha)
        total = np.zeros((passages.lines.targets, passages.size))
        for a, b in pairwise(points):
            total += _GRADIENT[rule](a, b) * _change(a, b)
        found.append(unrefined(total, difference, len(points), whole=len(points) == steps))
    return found, interrupted


def _change(a: Point | Probe, b: Point | Probe) -> np.ndarray:
    """Of the values from a to b, (D,), in double precision."""
    change: np.ndarray = _valued(b).astype(np.float64) - _valued(a)
    return change


def _valued(point: Point | Probe) -> np.ndarray:
    """The values of the vector at a point, (D,)."""
    assert point.value is not None
    return point.value


def _jump(a: Point, b: Point) -> np.ndarray:
    """Of the gradients from a to b, (K, D), in double precision; 0 where one is infinite."""
    if not (a.finite and b.finite):
        return np.zeros(a.gradient.shape)
    jump: np.ndarray = b.gradient.astype(np.float64) - a.gradient
    return jump
