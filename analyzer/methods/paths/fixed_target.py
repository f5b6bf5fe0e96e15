"""A target held as it is at the inputs, at other points: what path methods integrate.

From a Differentiable, feeds and a target to the explained output and its gradient anywhere: the class that is highest
at the inputs stays the one that is explained, and inputs that are not attributed stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from analyzer.autodiff.request import OUTPUT
from analyzer.backends import Differentiable
from analyzer.backends.differentiable import Gradients
from analyzer.backends.undefined import cause
from analyzer.errors import AnalysisError, UndefinedResult
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.fixes import BASELINE
from analyzer.methods.numbers import refuse_count
from analyzer.target.target import Target, TargetLike, as_target, one_scalar, rows_of
from analyzer.types import Arrays


@dataclass(frozen=True)
class Held:
    """names: the inputs that are attributed. feeds: all inputs. output (N,): the explained one, at the feeds.

    tensors: those explained. Held is a class of the first for each sample, `chosen` (N,), or `weights` (N, …) over
    each. Where K classes of each sample are explained one by one, chosen and output are (N, K), and so are outputs
    everywhere below; gradients then are (n, K, *features).
    """

    fn: Differentiable
    names: tuple[str, ...]
    feeds: Arrays
    tensors: tuple[str, ...]
    output: np.ndarray
    chosen: np.ndarray | None
    weights: Arrays

    @property
    def samples(self) -> int:
        """The number of samples, N."""
        return len(self.output)

    def gradients(self, points: Arrays, rows: np.ndarray) -> Gradients:
        """The output (n,) and its gradients at points {name: (n, *features)}, each on the path of sample `rows`[k]."""
        feeds = self.feeds_at(points, rows)
        return self.fn.gradients(feeds, self.target(rows), wrt=self.names, defined=False)

    def finite_gradients(self, points: Arrays, rows: np.ndarray) -> Gradients:
        """As `gradients`. Raises UndefinedResult where the output or a gradient is not finite."""
        found = self.gradients(points, rows)
        for k, row in enumerate(rows):
            if not all(np.isfinite(array[k]).all() for array in (found.output, *found.gradients.values())):
                why = self.cause(points, rows, k, bool(np.isfinite(found.output[k]).all()))
                raise UndefinedResult(
                    f"the output or its gradient is not finite on the path of sample {row} ({why}). {BASELINE}"
                )
        return found

    def outputs(self, points: Arrays, rows: np.ndarray, where: str = "at the baseline") -> np.ndarray:
        """The output (n,) at such points, in double precision, by a forward pass. where: they lie, for errors."""
        return self.scalars(self.fn.forward(self.feeds_at(points, rows), self.tensors), rows, where)

    def cause(self, points: Arrays, rows: np.ndarray, place: int, output_is_finite: bool) -> str:
        """Return a phrase with the results that are not finite at one of the points, and the first node at fault."""
        rows = rows[place : place + 1]
        feeds = self.feeds_at({name: array[place : place + 1] for name, array in points.items()}, rows)
        seed = self.fn.seed(self.target(rows), len(rows), feeds)
        return cause(self.fn, feeds, seed, ["the gradient"] if output_is_finite else [OUTPUT])

    def scalars(self, values: Arrays, rows: np.ndarray, where: str = "at the baseline") -> np.ndarray:
        """What is explained of values {tensor: (n, …)}, the k-th for sample `rows`[k]: (n,), float64.

        Raises UndefinedResult where it is not finite.
        """
        found = self._scalars(values, rows)
        lost = np.flatnonzero(~np.isfinite(found.reshape(len(rows), -1)).all(axis=1))
        if len(lost):
            raise UndefinedResult(
                f"the output {where} of sample {rows[lost[0]]} is {found[lost[0]]}, which is not finite. {BASELINE}"
            )
        return found

    def _scalars(self, values: Arrays, rows: np.ndarray) -> np.ndarray:
        flat = {name: rows_of(values[name]).astype(np.float64) for name in self.tensors}
        if self.weights:
            weights = {name: rows_of(array)[rows] for name, array in self.weights.items()}
            # A mask may put −∞ where the weight is 0.
            sums = [
                np.multiply(flat[n], w, out=np.zeros_like(flat[n]), where=w != 0).sum(axis=1)
                for n, w in weights.items()
            ]
            return np.asarray(np.sum(sums, axis=0))
        assert self.chosen is not None
        chosen = self.chosen[rows]
        each = np.take_along_axis(flat[self.tensors[0]], chosen.reshape(len(rows), -1), 1)
        return each.reshape(chosen.shape)

    def feeds_at(self, points: Arrays, rows: np.ndarray) -> Arrays:
        """All inputs at such points: those that are not attributed as they are."""
        batched = batched_inputs(self.fn.graph)
        return {
            name: points[name].astype(array.dtype, copy=False)
            if name in points
            else (array[rows] if name in batched else array)
            for name, array in self.feeds.items()
        }

    def target(self, rows: np.ndarray) -> Target:
        """The target of samples `rows`."""
        if self.weights:
            return Target(weights={name: array[rows] for name, array in self.weights.items()})
        assert self.chosen is not None
        if self.chosen.ndim == 2:
            return Target(self.tensors[0], each=self.chosen[rows])
        return Target(self.tensors[0], index=self.chosen[rows])


def hold(
    fn: Differentiable,
    feeds: Arrays,
    target: TargetLike,
    names: tuple[str, ...] | None = None,
    *,
    several: bool = False,
) -> Held:
    """Resolve a target at the feeds. names: the inputs that are attributed, by default all floating ones.

    several: whether the method takes several classes of each sample, explained one by one.
    Raises TargetError, and AnalysisError where there is nothing to attribute.
    """
    names = fn.roots(names)
    alone = [name for name in names if name not in batched_inputs(fn.graph)]
    if alone:
        others = [name for name in names if name not in alone]
        fix = f"follow the other inputs, wrt={others}" if others else "give the input a first axis of samples"
        raise AnalysisError(
            f"the input {alone[0]!r} has no axis of samples along which a path could be followed. Fix: {fix}"
        )
    wanted = as_target(target) if several else one_scalar(target)
    found = fn.gradients(feeds, wanted, wrt=())
    seed = fn.seed(wanted, len(found.output), feeds)
    if found.target is not None and (fn.graph.tensors[seed.output].rank <= 2 or found.target.ndim == 2):
        return Held(fn, names, feeds, seed.outputs, found.output, found.target, {})
    (weights,) = seed.cotangents(fn.forward(feeds, seed.outputs))
    return Held(fn, names, feeds, seed.outputs, found.output, found.target, weights)


def in_batches(count: int, size: int) -> Iterator[np.ndarray]:
    """The numbers below `count`, at most `size` at a time. Raises AnalysisError for a size below 1."""
    refuse_count("batch_size", size, 1, 16)
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
