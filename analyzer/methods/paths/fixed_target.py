"""A target held as it is at the inputs, at other points: what path methods integrate.

From a Bound to the explained output and its gradient anywhere: the class that is highest at the inputs stays the one
that is explained, and inputs that are not attributed stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.autodiff.request import OUTPUT
from analyzer.backends import Differentiable
from analyzer.backends.bound import Bound, Gradients
from analyzer.backends.undefined import cause
from analyzer.errors import AnalysisError, UndefinedResult
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.fixes import BASELINE
from analyzer.methods.numbers import refuse_count
from analyzer.types import Arrays


@dataclass(frozen=True)
class Held:
    """bound: the inputs, and the target with its class fixed. names: the inputs that are attributed.

    output (N,): the explained one, at the inputs. chosen (N,): the class; None where weights are explained. Where K
    classes of each sample are explained one by one, chosen and output are (N, K), and so are outputs everywhere below;
    gradients then are (n, K, *features).
    """

    bound: Bound
    names: tuple[str, ...]
    output: np.ndarray
    chosen: np.ndarray | None

    @property
    def fn(self) -> Differentiable:
        """The model."""
        return self.bound.fn

    @property
    def feeds(self) -> Arrays:
        """All inputs, {input name: array}."""
        return self.bound.feeds

    @property
    def tensors(self) -> tuple[str, ...]:
        """The outputs that the explained scalar is made of."""
        return self.bound.seed.outputs

    @property
    def samples(self) -> int:
        """The number of samples, N."""
        return len(self.output)

    def form(self, arrays: Arrays) -> Any:
        """Return results by tensor in the form of the inputs: one array, or {tensor: array}."""
        return self.bound.feeds.form(arrays)

    def gradients(self, points: Arrays, rows: np.ndarray) -> Gradients:
        """The output (n,) and its gradients at points {name: (n, *features)}, each on the path of sample `rows`[k]."""
        return self.bound.at(points, rows).gradients(self.names, defined=False)

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
        return self.scalars(self.bound.at(points, rows).outputs(), rows, where)

    def cause(self, points: Arrays, rows: np.ndarray, place: int, output_is_finite: bool) -> str:
        """Return a phrase with the results that are not finite at one of the points, and the first node at fault."""
        point = {name: array[place : place + 1] for name, array in points.items()}
        bound = self.bound.at(point, rows[place : place + 1])
        return cause(bound, ["the gradient"] if output_is_finite else [OUTPUT])

    def scalars(self, values: Arrays, rows: np.ndarray, where: str = "at the baseline") -> np.ndarray:
        """What is explained of values {tensor: (n, …)}, the k-th for sample `rows`[k]: (n,), float64.

        Raises UndefinedResult where it is not finite.
        """
        double = {name: values[name].astype(np.float64) for name in self.tensors}
        found = self.bound.seed.rows(rows).explained(double)
        lost = np.flatnonzero(~np.isfinite(found.reshape(len(rows), -1)).all(axis=1))
        if len(lost):
            raise UndefinedResult(
                f"the output {where} of sample {rows[lost[0]]} is {found[lost[0]]}, which is not finite. {BASELINE}"
            )
        return found


def hold(bound: Bound, names: tuple[str, ...] | None = None) -> Held:
    """Fix the class that is explained at the inputs. names: the attributed inputs, by default all floating ones.

    Raises AnalysisError where there is nothing to attribute.
    """
    fn = bound.fn
    names = fn.roots(names)
    alone = [name for name in names if name not in batched_inputs(fn.graph)]
    if alone:
        others = [name for name in names if name not in alone]
        fix = f"follow the other inputs, wrt={others}" if others else "give the input a first axis of samples"
        raise AnalysisError(
            f"the input {alone[0]!r} has no axis of samples along which a path could be followed. Fix: {fix}"
        )
    found = bound.gradients(())
    return Held(bound.holding(found.target), names, found.output, found.target)


def in_batches(count: int, size: int) -> Iterator[np.ndarray]:
    """The numbers below `count`, at most `size` at a time. Raises AnalysisError for a size below 1."""
    refuse_count("batch_size", size, 1, 16)
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
