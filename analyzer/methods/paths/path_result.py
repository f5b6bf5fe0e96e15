"""What every method along a path gives: attributions, how far their sum is from what it must be, and a picture."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.graph.precision import epsilon
from analyzer.methods.completeness import Completeness, measure, sample_sums
from analyzer.methods.paths.fixed_target import Held
from analyzer.methods.result import BASELINE_DIFFERENCE, Attribution
from analyzer.types import Arrays


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class PathAttribution(Attribution):
    """The result of a method that integrates along a path: the sum holds to 1 %, and beyond that is not judged."""

    @property
    def detail(self) -> str:
        """The number of gradients."""
        return f"{self.evaluations} gradients"

    @property
    def sums_to(self) -> str:
        """The number that the attributions sum to, in words."""
        return BASELINE_DIFFERENCE

    @cached_property
    def passed(self) -> tuple[bool | None, ...]:
        """For each sample, True where the sum is within 1 %; else None: more steps bring it closer."""
        assert self.completeness is not None
        return tuple(True if near else None for near in self.completeness.within(NEAR))

    @property
    def remark(self) -> str:
        """How the sum comes closer, where it is not within 1 %."""
        return "" if all(self.passed) else "more steps bring the sum closer"

    @property
    def stated(self) -> dict[str, Any]:
        """The number of gradients."""
        return {"evaluations": self.evaluations}


NEAR = 0.01
"""The share of a difference of outputs within which the sum of the attributions counts as complete."""


def path_attributions(held: Held, totals: Arrays, difference: np.ndarray, evaluations: int) -> dict[str, Any]:
    """Return the fields of the result of sums in double precision {input name: (N, *features)}.

    difference (N,): what they must sum to.
    """
    known = channel_axes(held.fn.graph)
    typed = {name: total.astype(held.feeds[name].dtype) for name, total in totals.items()}
    return {
        "attributions": held.form(typed),
        "completeness": completeness_of(difference, typed, rounding_of(held.output, difference)),
        "evaluations": evaluations,
        "output": held.output,
        "target": held.chosen,
        "wrt": tuple(totals),
        "channel_axes": {name: input_channel_axis(held.fn.graph, name, known) for name in totals},
    }


def rounding_of(output: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """The rounding of the difference between outputs at the ends of a path, (N,), in double precision.

    output (N,): at its end, in the precision of the model. difference (N,): of it and that at the start.
    """
    ends = output.astype(np.float64)
    found: np.ndarray = epsilon(output.dtype) * np.maximum(np.abs(ends), np.abs(ends - difference))
    return found


def completeness_of(difference: np.ndarray, totals: Arrays, rounding: np.ndarray) -> Completeness:
    """How far the sums over all inputs are from the difference, (N,). rounding: of the difference."""
    total = np.sum([sample_sums(array) for array in totals.values()], axis=0)
    absolute = np.sum([sample_sums(np.abs(array)) for array in totals.values()], axis=0)
    return measure(difference, total, absolute, rounding)
