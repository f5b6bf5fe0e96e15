"""Straight lines from baselines to inputs, and what a model says at their points.

From a held target and one or several baselines to a line for each sample and baseline. The points of several lines are
evaluated together; the attributed tensors of a sample are one vector of D numbers throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analyzer.errors import UndefinedResult
from analyzer.graph.fixes import BASELINE
from analyzer.methods.paths.fixed_target import Held, in_batches
from analyzer.methods.paths.probes import Probe, beyond_cubic
from analyzer.types import Arrays


@dataclass(frozen=True, eq=False)
class Point:
    """A point at `alpha` of a line. output (K,): what K targets explain there; gradient (K, D): of each.

    finite: whether the gradient is; it may not be at an end, as that of a square root at 0. value (D,): of the tensors
    that are attributed, where they do not lie on the line.
    """

    alpha: float
    output: np.ndarray
    gradient: np.ndarray
    finite: bool = True
    value: np.ndarray | None = None


Evaluated = tuple[np.ndarray, np.ndarray, np.ndarray | None]
"""Of n places: the explained output (n,) or (n, K), its gradient (n, K, D), and values that it is taken at (n, D), None
on the line."""
Evaluate = Callable[[Arrays, np.ndarray], Evaluated]
"""Places {name: (n, *features)} on the paths of samples (n,), and what is found there."""


Foretell = Callable[[Arrays, np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""Of such places, the explained output (n,) or (n, K), and the values (n, D) that are attributed, None on the line."""


@dataclass(frozen=True, eq=False)
class Lines:
    """held.samples · len(starts) lines, those of a sample one after the other. starts: {name: (N, *features)} each."""

    held: Held
    starts: Sequence[Arrays]
    batch_size: int

    @property
    def count(self) -> int:
        """The number of lines."""
        return self.held.samples * len(self.starts)

    @property
    def targets(self) -> int:
        """K: the scalars of a sample that are explained one by one, 1 for a single one."""
        return self.held.output.shape[1] if self.held.output.ndim == 2 else 1

    @cached_property
    def size(self) -> int:
        """D: the numbers that are attributed in a sample."""
        return sum(self.held.feeds[name][0].size for name in self.held.names)

    @property
    def gradient_size(self) -> int:
        """The numbers of a gradient."""
        return self.size

    @cached_property
    def item_bytes(self) -> int:
        """Of a number of a gradient."""
        return max(self.held.feeds[name].itemsize for name in self.held.names)

    def probes(self, wanted: Sequence[tuple[int, float]]) -> Iterator[Probe]:
        """The outputs at (line, alpha), in their order. Raises AnalysisError where one is not finite."""
        return self.each_probe(wanted, self._foretold)

    def each_probe(self, wanted: Sequence[tuple[int, float]], found: Foretell) -> Iterator[Probe]:
        """The outputs at (line, alpha), as something finds them at places on the lines, a batch at a time."""
        lines = np.array([line for line, _ in wanted], int)
        alphas = np.array([alpha for _, alpha in wanted])
        for batch in in_batches(len(wanted), self.batch_size):
            rows = lines[batch] // len(self.starts)
            outputs, values = found(self._points(lines[batch], alphas[batch]), rows)
            outputs = outputs.astype(np.float64).reshape(len(batch), self.targets)
            for k, place in enumerate(batch):
                yield Probe(float(alphas[place]), outputs[k], None if values is None else values[k])

    def unforeseen(self, line: int, probe: Probe, a: Point, b: Point) -> np.ndarray:
        """How far the output at a probe is from what the points around it allow, (K,)."""
        if not (a.finite and b.finite):
            return np.zeros(self.targets)
        width = b.alpha - a.alpha
        slopes = [point.gradient @ self.direction(line) for point in (a, b)]
        t = (probe.alpha - a.alpha) / width
        moves = (width * slopes[0], width * slopes[1])
        return beyond_cubic(probe.output, t, (a.output, b.output), moves)

    def evaluate(self, wanted: Sequence[tuple[int, float]], *, open_ends: bool = False) -> Iterator[Point]:
        """The points at (line, alpha), in their order.

        open_ends: let the gradient at an end be infinite, where the output is not. Raises UndefinedResult where it, or
        any other, is not finite.
        """
        return self.each(wanted, self._found, open_ends=open_ends)

    def each(
        self, wanted: Sequence[tuple[int, float]], found: Evaluate, *, open_ends: bool
    ) -> Iterator[Point]:
        """The points at (line, alpha), as something finds them at places on the lines, a batch at a time."""
        lines = np.array([line for line, _ in wanted], int)
        alphas = np.array([alpha for _, alpha in wanted])
        for batch in in_batches(len(wanted), self.batch_size):
            rows = lines[batch] // len(self.starts)
            points = self._points(lines[batch], alphas[batch])
            outputs, gradients, values = found(points, rows)
            outputs = outputs.astype(np.float64).reshape(len(batch), self.targets)
            finite = [bool(np.isfinite(gradient).all()) for gradient in gradients]
            for k, place in enumerate(batch):
                point = Point(
                    float(alphas[place]),
                    output=outputs[k],
                    gradient=gradients[k],
                    finite=finite[k],
                    value=None if values is None else values[k],
                )
                is_open = open_ends and point.alpha in (0, 1)
                if not (np.isfinite(point.output).all() and (point.finite or is_open)):
                    raise self._undefined(point, points, rows, k)
                yield point

    def _undefined(self, point: Point, points: Arrays, rows: np.ndarray, place: int) -> UndefinedResult:
        """The error for a point that is not finite."""
        why = self.held.cause(points, rows, place, bool(np.isfinite(point.output).all()))
        return UndefinedResult(
            f"at α = {point.alpha:.6g} on the path of sample {rows[place]}, from the baseline at 0 to the input at 1, "
            f"the output or its gradient is not finite ({why}). {BASELINE}, or another rule= (--rule)"
        )

    def direction(self, line: int) -> np.ndarray:
        """The input less the baseline, (D,), in double precision."""
        sample, which = divmod(line, len(self.starts))
        spans = [
            self.held.feeds[name][sample].astype(np.float64) - self.starts[which][name][sample]
            for name in self.held.names
        ]
        return np.concatenate([span.reshape(-1) for span in spans])

    def scales(self, line: int) -> bool:
        """Whether all that moves starts at 0: the points are then the input times α, precise for any α."""
        sample, which = divmod(line, len(self.starts))
        start = self.starts[which]
        return not any(
            np.any((start[name][sample] != 0) & (start[name][sample] != self.held.feeds[name][sample]))
            for name in self.held.names
        )

    def attributions(self, lines: Sequence[int], gradients: np.ndarray) -> np.ndarray:
        """Mean gradients (n, K, G) along these lines, times the inputs less the baselines: (n, K, D)."""
        return np.stack([mean * self.direction(line) for line, mean in zip(lines, gradients, strict=True)])

    def area(self, a: Point, b: Point) -> np.ndarray:
        """The integral of the gradient over α from a to b by a trapezoid, (K, D); see `mean_gradient`."""
        return mean_gradient(a, b) * (b.alpha - a.alpha)

    def travel(self, a: Point, b: Point, weights: np.ndarray) -> np.ndarray:
        """How far a line goes from a to b, as a share of it, (K,)."""
        return np.full(self.targets, b.alpha - a.alpha)

    def unseen(self, a: Point, m: Point, b: Point) -> np.ndarray:
        """Nothing: the halves of an interval of a straight line are equally long."""
        return np.zeros(self.targets)

    def rounding(self, points: Sequence[Point]) -> np.ndarray:
        """Nothing, (K,): gradients are as precise as the map, and the direction is exact."""
        return np.zeros(self.targets)

    def arrays(self, numbers: np.ndarray) -> Arrays:
        """Vectors (n, D) as {name: (n, *features)}."""
        return arrays_of(numbers, {name: self.held.feeds[name].shape[1:] for name in self.held.names})

    def _found(self, points: Arrays, rows: np.ndarray) -> Evaluated:
        found = self.held.gradients(points, rows)
        return found.output, vectors(found.gradients, self.held.names, self.targets), None

    def _foretold(self, points: Arrays, rows: np.ndarray) -> tuple[np.ndarray, None]:
        return self.held.outputs(points, rows, "on the path"), None

    def _points(self, lines: np.ndarray, alphas: np.ndarray) -> Arrays:
        """{name: (n, *features)}: each place in the precision of the input, so that both ends are met."""
        rows, which = np.divmod(lines, len(self.starts))
        points = {}
        for name in self.held.names:
            ends = self.held.feeds[name]
            points[name] = found = np.empty((len(lines), *ends.shape[1:]), ends.dtype)
            # Point by point, so that what is between lies in the processor's cache.
            for k, (alpha, row, start) in enumerate(zip(alphas.astype(ends.dtype), rows, which, strict=True)):
                # Of a scalar, found[k] is a number and no view.
                np.multiply(ends[row], alpha, out=found[k, ...])
                found[k, ...] += (1 - alpha) * self.starts[start][name][row]
        return points


def mean_gradient(a: Point, b: Point) -> np.ndarray:
    """Of both ends of an interval, (K, D), in double precision; an infinite one is left out of it."""
    gradients = [point.gradient.astype(np.float64) for point in (a, b) if point.finite]
    mean: np.ndarray = np.mean(gradients, axis=0)
    return mean


def largest_gradient(points: Sequence[Point]) -> np.ndarray:
    """Return the largest size of every element of the gradients at some points, (K, D), in double precision."""
    found: np.ndarray = np.max([np.abs(point.gradient) for point in points if point.finite], axis=0)
    return found.astype(np.float64)


def vectors(arrays: Arrays, names: Sequence[str], targets: int) -> np.ndarray:
    """{name: (n, *features)}, or (n, K, *features), as (n, K, D), in the order of the names."""
    parts = [arrays[name].reshape(len(arrays[name]), targets, -1) for name in names]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=2)


def arrays_of(numbers: np.ndarray, shapes: Mapping[str, tuple[int, ...]]) -> Arrays:
    """Vectors (n, D) as {name: (n, *features)}. shapes: of the features, in the order of the vectors."""
    found, begin = {}, 0
    for name, shape in shapes.items():
        end = begin + math.prod(shape)
        found[name] = numbers[:, begin:end].reshape(-1, *shape)
        begin = end
    return found
