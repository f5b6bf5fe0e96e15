"""Readings of one model by several backends, compared pair by pair.

From Readers to rows: outputs, layers, gradients, FullGrad, Integrated Gradients. What exceeds its tolerance is
explained by kink decisions that are named (kinks.py), or it is a failure, and the node at fault is looked for
(localize.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import combinations

import numpy as np

from analyzer.checks.explain.forms import explain_map
from analyzer.checks.explain.kinks import Explanation, Side, explain, follows_rules, listed
from analyzer.checks.explain.localize import Origin, backward_origin, forward_origin
from analyzer.checks.explain.rounding import excuse_rounding, rounded_alike
from analyzer.checks.explain.ties import find_ties
from analyzer.checks.metrics import distance, relative_distance, worst_sample
from analyzer.checks.read.passes import Passes
from analyzer.checks.read.reading import Reader, Reading, maps_of
from analyzer.checks.read.twin import Twin
from analyzer.checks.tolerances import COMPLETENESS
from analyzer.graph.graph import Graph
from analyzer.graph.layer_names import layer_of
from analyzer.methods.completeness import Completeness
from analyzer.methods.paths.quadrature import quadrature
from analyzer.target.target import Target
from analyzer.types import Announce, Arrays, Row

Indices = tuple[int, int]
Choices = Callable[[int], Side | None]

RULE = "gauss-legendre"
STEPS = 8
# Values never are excused: a decision at a kink moves them by its rounding alone.
NEVER_EXCUSED = ("output", "layer")
# Their first axis is that of the samples, and samples that differ much in size are explained together.
BY_SAMPLE = ("input gradient", "full grad", "integrated gradients")


@dataclass
class Comparison:
    """The backends of one check, and what is known of each."""

    readers: Sequence[Reader | Twin]
    feeds: Arrays
    target: Target
    tolerances: Mapping[str, float]
    progress: Announce | None
    seconds: list[float] = field(init=False)
    integrated: list[Arrays] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.seconds = [0.0] * len(self.readers)
        self._choices: Choices = cache(partial(self._choices_at, self.feeds))
        self._passes = Passes(self.graph)

    @property
    def _excess(self) -> float:
        """From where on gradients are apart."""
        return self.tolerances["input gradient"]

    @property
    def graph(self) -> Graph:
        """The graph whose tensors are compared."""
        return self.readers[0].graph

    @property
    def roots(self) -> tuple[str, ...]:
        """The tensors that are attributed."""
        return self.readers[0].roots

    @property
    def pairs(self) -> list[Indices]:
        """Every backend against every other."""
        return list(combinations(range(len(self.readers)), 2))

    def readings(self) -> list[Reading]:
        """One reading a backend."""
        found = []
        for index, reader in enumerate(self.readers):
            self._tell(reader.name)
            found.append(reader.read(self.feeds))
            # What the backend made ready for this run holds several copies of the weights; the next runs differ.
            reader.fn.release()
            self.seconds[index] += found[-1].seconds
        return found

    def rows_of(self, pair: Indices, readings: Sequence[Reading]) -> list[Row]:
        """The rows of one pair, in the order output, layers, gradients, FullGrad."""
        a, b = (readings[index] for index in pair)
        left, right = (reading.quantities(self.roots) for reading in (a, b))
        rows = [row for key in left for row in self._rows(pair, key, left[key], right[key])]
        jumping = [row for row in rows if row["quantity"] not in NEVER_EXCUSED]
        excuse_rounding((row for row in rows if row["quantity"].endswith("gradient")), a.side, b.side)
        if not all(row["passed"] for row in jumping):
            self._tell(f"{self._name(pair[0])} against {self._name(pair[1])}")
            found = self._explanation(pair, (a.side, b.side), self._choices)
            if found is not None and found.held.ties:
                jumping = [row for row in jumping if self._agrees_held(row, pair, found.held, readings)]
            excuse(jumping, found.text if found else None)
        self._excuse_maps(pair, rows)
        return rows

    def settled(self, index: int, reading: Reading) -> tuple[Completeness, str]:
        """FullGrad's sum of a backend; of a source that chose otherwise at exact ties, which no residual of ours knows,
        with these decided as our rules do, and what they are.
        """
        reader, side = self.readers[index], None
        if not reading.completeness.within(self.tolerances[COMPLETENESS]).all():
            side = self._choices(index)
        if side is None or not follows_rules(self._passes, side, self._excess):
            return reading.completeness, ""
        assert isinstance(reader, Reader)
        ours = reader.decompose(self.feeds, replace(side, ties=()), reading.completeness.output)
        return ours.completeness, f"{listed(side.tied)} at an exact tie, decided as elsewhere"

    def integrated_rows(self, steps: int) -> list[Row]:
        """Integrated Gradients of every backend, compared pair by pair.

        Every point of the path at which two gradients differ must be explained by itself.
        """
        totals: list[Arrays] = [
            {name: np.zeros(self.feeds[name].shape) for name in self.roots} for _ in self.readers
        ]
        reasons: dict[Indices, list[str | None]] = {pair: [] for pair in self.pairs}
        for number, (alpha, weight) in enumerate(zip(*quadrature(RULE, steps), strict=True), 1):
            self._tell(f"integrated gradients, point {number} of {steps}")
            point = self._point(alpha)
            sides, choices = self._sides_at(point), cache(partial(self._choices_at, point))
            for total, side in zip(totals, sides, strict=True):
                for name in total:
                    total[name] = total[name] + weight * side.gradients[name].astype(np.float64)
            for pair in self.pairs:
                a, b = (sides[index] for index in pair)
                if any(self._apart(a.gradients[name], b.gradients[name]) for name in self.roots):
                    found = self._explanation(pair, (a, b), choices)
                    reasons[pair].append(f"at α = {alpha:.2f}: {found.text}" if found else None)
        self.integrated = [{n: g * self.feeds[n] for n, g in total.items()} for total in totals]
        rows = []
        for pair in self.pairs:
            left, right = (self.integrated[index] for index in pair)
            apart = self._rows(pair, "integrated gradients", left, right)
            excuse(apart, _summary(reasons[pair]))
            rows += apart
        return rows

    def origin(self, pair: Indices, readings: Sequence[Reading], rows: Sequence[Row]) -> Origin | None:
        """The node at which two backends part; None where none is at fault by itself."""
        failing = {row["quantity"] for row in rows if not row["passed"]}
        if not failing:
            return None
        self._tell(f"looking for where {self._name(pair[0])} and {self._name(pair[1])} part")
        found = None
        if not failing & {"output", "layer"}:
            a, b = (self.readers[index].everywhere(self.feeds) for index in pair)
            alike = rounded_alike(a, b)
            apart = self._distances(a.gradients, b.gradients)
            apart = {name: size for name, size in apart.items() if name not in alike}
            excess = min(self.tolerances[name] for name in ("input gradient", "bias gradient"))
            found = backward_origin(self.graph, self._labelled(pair, (a, b)), apart, excess)
        if found is None:
            # Values that differ by less than their tolerance may do so for gradients that differ by more.
            a, b = (readings[index].side for index in pair)
            apart = self._distances(a.values, b.values)
            sides, excess = self._labelled(pair, (a, b)), self.tolerances["layer"]
            found = forward_origin(self.graph, sides, apart, excess, self.feeds)
        return found

    def judge(self, rows: Iterable[Row], readings: Sequence[Reading], truths: Sequence[Reading]) -> None:
        """Write into the rows in excess how far either side is from its float64 reading, and which is nearer; where
        the two sides have a reading each, how far these are apart.
        """
        places = {reader.name: index for index, reader in enumerate(self.readers)}
        mine, exact = ([one.quantities(self.roots) for one in found] for found in (readings, truths))
        for row in rows:
            quantity, tensor = row["quantity"], row["tensor"]
            a, b = (places[row[side]] for side in "ab")
            if any(tensor not in exact[index].get(quantity, {}) for index in (a, b)):
                continue
            if row["passed"] and not row["explanation"]:
                continue
            for side, index in (("a", a), ("b", b)):
                read, true = mine[index][quantity][tensor], exact[index][quantity][tensor]
                row[f"{side}_error"] = apart_by(quantity, read, true)
            row["nearer"] = row["a"] if row["a_error"] <= row["b_error"] else row["b"]
            if truths[a] is not truths[b]:
                row["float64"] = apart_by(quantity, exact[a][quantity][tensor], exact[b][quantity][tensor])

    def _labelled(self, pair: Indices, sides: tuple[Side, Side]) -> dict[str, Side]:
        return {self._name(index): side for index, side in zip(pair, sides, strict=True)}

    def _distances(self, left: Arrays, right: Arrays) -> dict[str, float]:
        """Tensors that are visibly apart, in graph order."""
        order = [
            name for name in (*self.graph.inputs, *self.graph.producer) if name in left and name in right
        ]
        found = {name: relative_distance(left[name], right[name]) for name in order}
        least = 1e-2 * min(self.tolerances.values())
        return {name: apart for name, apart in found.items() if apart > least}

    def _point(self, alpha: float) -> Arrays:
        """A point of the path from zeros to the inputs."""
        return {
            name: (np.asarray(alpha, array.dtype) * array if name in self.roots else array)
            for name, array in self.feeds.items()
        }

    def _sides_at(self, point: Arrays) -> list[Side]:
        """Each backend at one point of the path."""
        sides = []
        for index, reader in enumerate(self.readers):
            began = time.perf_counter()
            sides.append(reader.at_point(point))
            self.seconds[index] += time.perf_counter() - began
        return sides

    def _explanation(self, pair: Indices, sides: tuple[Side, Side], choices: Choices) -> Explanation | None:
        """The decisions that explain why two sides' gradients differ, or None."""
        found = self._explain(*sides)
        if found is not None:
            return found
        for index, ours in zip(pair, sides[::-1], strict=True):
            if (theirs := choices(index)) is not None:
                return self._explain(ours, theirs)
        return None

    def _explain(self, a: Side, b: Side) -> Explanation | None:
        wrt = [name for name in a.gradients if name in b.gradients]
        return explain(self._passes, a, b, wrt, self._excess)

    def _choices_at(self, point: Arrays, index: int) -> Side | None:
        """The source at every tensor, with the exact ties at which it chose otherwise than our rules; None where there
        are none. Backends of ours have no choice: docs/subgradients.md states it.
        """
        reader = self.readers[index]
        if reader.fn.backend != "source" or isinstance(reader, Twin):
            return None
        side = reader.everywhere(point)
        ties = find_ties(self._passes, self.roots, side, self._excess)
        return replace(side, ties=tuple(ties)) if ties else None

    def _excuse_maps(self, pair: Indices, rows: Sequence[Row]) -> None:
        """Where nothing but maps differs, it may be for terms that a map shows and nothing else does (forms.py)."""
        apart = [row for row in rows if not row["passed"]]
        if apart and all(row["quantity"] == "full grad" for row in apart):
            a, b = (self.readers[index] for index in pair)
            assert isinstance(a, Reader)
            excuse(apart, explain_map(a, b, self.feeds, self.tolerances["full grad"]))

    def _agrees_held(self, row: Row, pair: Indices, held: Side, readings: Sequence[Reading]) -> bool:
        """Whether a row's map agrees with the decisions held equal; anything but a map was shown to."""
        if row["quantity"] != "full grad" or row["passed"]:
            return True
        (index,) = (index for index in pair if self.readers[index].fn.backend == "source")
        reader = self.readers[index]
        assert isinstance(reader, Reader)
        maps = maps_of(reader.decompose(self.feeds, held, readings[index].completeness.output))
        apart = worst_sample(maps[row["tensor"]], readings[index].maps[row["tensor"]])
        return apart <= self.tolerances["full grad"]

    def _apart(self, left: np.ndarray, right: np.ndarray) -> bool:
        return worst_sample(left, right) > self.tolerances["integrated gradients"]

    def _rows(self, pair: Indices, quantity: str, left: Arrays, right: Arrays) -> list[Row]:
        """A comparison of each tensor that both sides have."""
        return [self._row(pair, quantity, name, left[name], right[name]) for name in left if name in right]

    def _row(self, pair: Indices, quantity: str, tensor: str, left: np.ndarray, right: np.ndarray) -> Row:
        names = (self._name(pair[0]), self._name(pair[1]))
        return row_of(quantity, tensor, names, left, right, self.tolerances[quantity], self.graph)

    def _name(self, index: int) -> str:
        return self.readers[index].name

    def _tell(self, what: str) -> None:
        if self.progress is not None:
            self.progress(what)


def row_of(
    quantity: str,
    tensor: str,
    names: tuple[str, str],
    left: np.ndarray,
    right: np.ndarray,
    tolerance: float,
    graph: Graph,
) -> Row:
    """One comparison of two arrays, as a row of a report."""
    measured = distance(left, right)
    if quantity in BY_SAMPLE:
        measured = replace(measured, relative_l2=apart_by(quantity, left, right))
    return {
        "quantity": quantity,
        "tensor": tensor,
        "a": names[0],
        "b": names[1],
        **vars(measured),
        "tolerance": tolerance,
        "passed": measured.relative_l2 <= tolerance,
        "explanation": "",
        **place_of(graph, tensor),
    }


def apart_by(quantity: str, left: np.ndarray, right: np.ndarray) -> float:
    """Return the relative L2 of two arrays, of the worst sample where the first axis is that of the samples."""
    by_sample = quantity in BY_SAMPLE and left.ndim > 1
    return worst_sample(left, right) if by_sample else relative_distance(left, right)


def place_of(graph: Graph, tensor: str) -> Row:
    """Where a tensor stands in the graph: the node that computes it, its layer, its position; −1 for an input."""
    node = graph.producer.get(tensor)
    if node is None:
        return {"node": "", "op_type": "", "layer": "", "depth": -1}
    return {
        "node": node.name,
        "op_type": node.op_type,
        "layer": layer_of(node),
        "depth": graph.positions[node.name],
    }


def excuse(rows: Sequence[Row], reason: str | None) -> None:
    """Mark the rows in excess as explained, in place."""
    for row in rows:
        if reason is not None and not row["passed"]:
            row.update(passed=True, explanation=reason)


def _summary(reasons: Sequence[str | None]) -> str | None:
    """The reasons of several points as one; None where one of them has none, or there are none."""
    given = [reason for reason in reasons if reason is not None]
    if not given or len(given) < len(reasons):
        return None
    more = f"; and at {len(given) - 2} more points" if len(given) > 2 else ""
    return "; ".join(given[:2]) + more
