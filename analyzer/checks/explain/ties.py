"""Tell another choice at an exact tie from a wrong gradient.

Where a value stands exactly on a kink every subgradient is right, and the framework that a model comes from may take
another one than our rules do (docs/subgradients.md): TensorFlow gives the gradient of a maximum of equal operands to
the first alone. From a source's values and gradients at all its tensors to the ties at which it chooses otherwise:
there its gradient differs from what our rules make of its own gradients behind, and both lie within the hull of those
that the rules give for values moved off the tie. What lies outside is no choice, and is left for the check to find.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analyzer.checks.explain.kinks import Decision, Side, Tie, decision_nodes, jumps
from analyzer.checks.explain.localize import way_on
from analyzer.checks.metrics import relative_distance
from analyzer.checks.read.passes import Pass, Passes
from analyzer.graph.graph import Node
from analyzer.graph.precision import epsilon
from analyzer.types import Arrays
from converters.verification.norms import inner

# By how many ε of itself a value is moved off its tie: enough to outlast the rounding of what is added on the way.
NUDGE = 8.0
# What an exact zero is moved by.
TINY = 1e-30
# Random functions of the values by which the elements of one tie are added up.
SUMS = 3


@dataclass(frozen=True)
class _Departure:
    """A tensor whose gradient is not what our rules make of the gradients behind it, by way of some decisions."""

    tensor: str
    nodes: tuple[Node, ...]
    side: Side
    gradient: Pass = field(repr=False)

    @property
    def value(self) -> np.ndarray:
        return self.side.values[self.tensor]

    @property
    def measured(self) -> np.ndarray:
        return self.side.gradients[self.tensor]

    def expected(self, moved: Arrays) -> np.ndarray:
        """The gradient by our rules, some values being moved."""
        (found,) = self.gradient.run({**self.side.given, **moved}).values()
        return found


def find_ties(passes: Passes, roots: Sequence[str], side: Side, tolerance: float) -> list[Tie]:
    """The ties at which a side, known at every tensor that it has, took another subgradient than our rules."""
    decisive = {node.name for node in decision_nodes(passes, roots, side.outputs)}
    departures = list(_departures(passes, decisive, side, tolerance))
    return [tie for group in _groups(departures) if (tie := _tie(passes, group, tolerance)) is not None]


def _departures(
    passes: Passes, decisive: Collection[str], side: Side, tolerance: float
) -> Iterator[_Departure]:
    """The tensors in front of decisions whose gradient our rules do not give."""
    for name in side.gradients:
        way = way_on(passes.graph, name, side)
        nodes = tuple(node for node in way if node.name in decisive)
        if not nodes:
            continue
        # What lies between is computed anew, so that it follows a value that is moved.
        between = {given for node in way for given in node.outputs}
        values = [other for other in side.values if other not in between]
        gradients = [other for other in side.gradients if other != name]
        gradient = passes.gradients((name,), values, gradients, side.outputs)
        found = _Departure(name, nodes, side, gradient)
        if relative_distance(found.measured, found.expected({})) > tolerance:
            yield found


def _groups(departures: Sequence[_Departure]) -> list[list[_Departure]]:
    """The departures by the decisions that they share: the operands of one maximum belong together."""
    groups: list[list[_Departure]] = []
    for one in departures:
        names = {node.name for node in one.nodes}
        sharing = [any(node.name in names for other in group for node in other.nodes) for group in groups]
        joined = [other for group, shares in zip(groups, sharing, strict=True) if shares for other in group]
        groups = [group for group, shares in zip(groups, sharing, strict=True) if not shares]
        groups.append([*joined, one])
    return groups


def _tie(passes: Passes, group: Sequence[_Departure], tolerance: float) -> Tie | None:
    """The tie that explains departures with decisions in common; None where they are no subgradients."""
    ours, theirs = _at({}, group), {one.tensor: one.measured for one in group}
    moves = _moves(group, ours, tolerance)
    corners = [_at(moved, group) for moved in moves]
    spans = {name: _span([corner[name] for corner in corners]) for name in ours}
    inside = all(_within(side[name], *spans[name], tolerance) for side in (ours, theirs) for name in ours)
    tied = {name: _differ(*span, tolerance) for name, span in spans.items()}
    if not inside or not all(_sums_agree(group, side, corners, tied, tolerance) for side in (ours, theirs)):
        return None
    counts: dict[str, Decision] = {}
    for one in group:
        count = int((tied[one.tensor] & _differ(one.measured, ours[one.tensor], tolerance)).sum())
        for node in one.nodes:
            if any(_moves_derivative(passes, node, one.side, moved) for moved in moves):
                known = counts[node.name].count if node.name in counts else 0
                counts[node.name] = Decision(node, max(known, count))
    return Tie(tuple(ours), tuple(counts.values())) if counts else None


def _at(moved: Arrays, group: Sequence[_Departure]) -> Arrays:
    return {one.tensor: one.expected(moved) for one in group}


def _moves(group: Sequence[_Departure], ours: Arrays, tolerance: float) -> list[Arrays]:
    """Values moved off the tie: all up, all down, each alone, and where the side's own choice would be the only one."""

    def moved(up: Mapping[str, np.ndarray | bool], sign: int) -> Arrays:
        return {one.tensor: _moved(one.value, np.where(up[one.tensor], sign, -sign)) for one in group}

    alone = [{one.tensor: one is chosen for one in group} for chosen in group] if len(group) > 1 else []
    moves = [moved(up, sign) for up in (dict.fromkeys(ours, True), *alone) for sign in (1, -1)]
    above, below = (_at(move, group) for move in moves[:2])
    towards: dict[str, np.ndarray | bool] = {}
    for one in group:
        theirs, high, low = one.measured, above[one.tensor], below[one.tensor]
        # What moves together stays tied: there one goes up that the side gives more, or less, than our rules.
        nearer = np.abs(theirs - high) < np.abs(theirs - low)
        more = theirs > ours[one.tensor]
        towards[one.tensor] = np.where(_differ(high, low, tolerance), nearer, more)
    return [*moves, moved(towards, 1), moved(towards, -1)]


def _moved(value: np.ndarray, sign: np.ndarray) -> np.ndarray:
    step = NUDGE * epsilon(value.dtype) * np.abs(value)
    moved: np.ndarray = (value + sign * np.where(step == 0, TINY, step)).astype(value.dtype)
    return moved


def _span(gradients: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.min(gradients, axis=0), np.max(gradients, axis=0)


def _within(measured: np.ndarray, low: np.ndarray, high: np.ndarray, tolerance: float) -> bool:
    """Whether a gradient lies between its bounds, in every element."""
    return relative_distance(np.clip(measured, low, high), measured) <= tolerance


def _sums_agree(
    group: Sequence[_Departure], side: Arrays, corners: Sequence[Arrays], tied: Arrays, tolerance: float
) -> bool:
    """Whether what ties share comes out right in sum: the operands of a maximum get its gradient once.

    What is tied is equal, so any function of the value weights the members of a tie alike.
    """
    rng = np.random.default_rng(0)
    for rate, phase in rng.uniform(1, 7, (SUMS, 2)):
        weights = {one.tensor: np.sin(rate * one.value + phase) * tied[one.tensor] for one in group}
        sums = [
            sum(inner(weights[name], array) for name, array in gradients.items())
            for gradients in (side, *corners)
        ]
        size = sum(float(np.linalg.norm(weights[name] * array)) for name, array in side.items())
        nearest = min(max(sums[0], min(sums[1:])), max(sums[1:]))
        if abs(sums[0] - nearest) > tolerance * size:
            return False
    return True


def _differ(a: np.ndarray, b: np.ndarray, tolerance: float) -> np.ndarray:
    """The elements that differ by more than rounding."""
    scale = max(float(np.abs(a).max(initial=0.0)), float(np.abs(b).max(initial=0.0)))
    apart: np.ndarray = np.abs(a - b) > tolerance * scale
    return apart


def _moves_derivative(passes: Passes, node: Node, side: Side, moved: Arrays) -> bool:
    """Whether the local derivative of a node jumps where the values move."""
    outputs = [name for name in node.outputs if name]
    computed = passes.values(outputs, side.values.keys() - set(outputs))

    def completed(values: Arrays) -> Arrays:
        return {**values, **computed.run(values)}

    return jumps(passes, node, completed(side.values), completed({**side.values, **moved})) > 0
