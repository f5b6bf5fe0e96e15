"""The result of a method along straight lines in the input: Integrated Gradients and conductance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np

from analyzer.methods.completeness import path_remark
from analyzer.methods.paths.path_result import NEAR
from analyzer.methods.paths.top_k import of_rank
from analyzer.methods.result import BASELINE_DIFFERENCE, Attribution, class_label


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class LineAttribution(Attribution):
    """The attributions sum to f(x) − f(x′), up to `delta` (N,); `completeness` compares both.

    converged: (N,), whether the tolerance asked for is met, in the sum and in the map; False without a tolerance.
    spent: (N,), gradients computed for each sample; `evaluations` is the largest.
    steps, rule: the quadrature; the rule is "adaptive" where the lines were refined to a tolerance.
    interrupted: whether an interrupt ended the computation early.
    standard_error: of the average over several baselines, like the attributions. It is that of n baselines as draws,
        s/√n: of few of them 95 % of means lie within Student's quantile times it, 12.7 of two baselines, 4.3 of three.
    Of a Target(top=k) or Target(each=…) all arrays but `spent` have the classes behind the samples: attributions
    (N, k, *features), delta (N, k). `rank` returns the result of one class.
    Refined to a tolerance, all (N,):
    interval_error: the sum of the absolute errors of the intervals' own sums, in units of the output.
    scatter: the root of the sum of their squares, the size of `delta` if their signs were random.
    map_error: the predicted relative L2 error of the map. The true error is at most about twice as large, except for
        what no point shows (refinement.py).
    map_change: how far the last refinement moved the map.
    """

    converged: np.ndarray
    spent: np.ndarray
    steps: int
    rule: str
    interrupted: bool = False
    standard_error: Any = None
    interval_error: np.ndarray | None = None
    scatter: np.ndarray | None = None
    map_error: np.ndarray | None = None
    map_change: np.ndarray | None = None

    def rank(self, k: int) -> Self:
        """Return the result of the k-th class of each sample, of a Target(top=…) or Target(each=…).

        Raises AnalysisError where one scalar of each sample is explained.
        """
        return of_rank(self, k)

    @property
    def of_each_class(self) -> list[Self]:
        """The result of each of several classes of a sample; the result itself where one scalar is explained."""
        if self.output.ndim == 1:
            return [self]
        found = []
        for k in range(self.output.shape[1]):
            one = self.rank(k)
            assert one.target is not None
            labels = (class_label(int(index), self.class_names) for index in one.target)
            found.append(replace(one, classes=tuple(label.partition(",")[0] for label in labels)))
        return found

    @property
    def detail(self) -> str:
        """The number of gradients."""
        return f"{self.evaluations} gradients"

    @property
    def sums_to(self) -> str:
        """The number that the attributions sum to, in words."""
        return BASELINE_DIFFERENCE

    @property
    def met(self) -> np.ndarray:
        """(N,), or (N, k) of several classes: whether the sum is as near as asked, or to 1 % without a tolerance."""
        assert self.completeness is not None and self.delta is not None
        if self.map_error is not None:
            return self.converged
        scale = np.maximum(np.abs(self.completeness.output), np.finfo(np.float32).eps)
        near: np.ndarray = np.abs(self.delta) <= NEAR * scale
        return near

    @cached_property
    def passed(self) -> tuple[bool | None, ...]:
        """For each sample, whether completeness holds: to the tolerance asked for, or None beyond 1 % without one."""
        missed = None if self.map_error is None and not self.interrupted else False
        return tuple(True if fine else missed for fine in self.met)

    @property
    def remark(self) -> str:
        """What the sum does not say by itself."""
        close = bool(self.met.all())
        if self.interrupted:
            return f"interrupted after {self.evaluations} gradients: the error is that of what was computed"
        if self.map_error is not None:
            error = (
                f"the map is within {100 * float(self.map_error.max()):.1g} %, by the change it still makes"
            )
            most = self.settings.get("max_evaluations", self.evaluations)
            return error if close else f"{error}; {most} gradients did not reach the tolerance"
        assert self.completeness is not None
        return "" if close else path_remark(self.completeness)

    @property
    def stated(self) -> dict[str, Any]:
        """The gradients, and the errors of a refinement, one number for each sample."""
        numbers = {
            "spent": self.spent,
            "map_error": self.map_error,
            "interval_error": self.interval_error,
            "scatter": self.scatter,
            "map_change": self.map_change,
        }
        found = {name: array.tolist() for name, array in numbers.items() if array is not None}
        return {"evaluations": self.evaluations, "interrupted": self.interrupted, **found}
