"""Several classes of each sample, explained one by one along one path: their results as one, and one of them.

From the results of k classes to one whose arrays have them as a second axis, (N, k, …), and back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

import numpy as np

from analyzer.errors import AnalysisError
from analyzer.methods.completeness import Completeness
from analyzer.methods.paths.fixed_target import Held
from analyzer.methods.paths.integration import STATED
from analyzer.methods.result import Attribution
from analyzer.target.target import Chosen, chosen_classes

_Result = TypeVar("_Result", bound=Attribution)

# What differs from one class of a sample to the next.
_RANKED = frozenset({"attributions", "beside", "output", "target", "converged", "standard_error", *STATED})


def held_of_rank(held: Held, k: int) -> Held:
    """What is held of the k-th class of each sample."""
    if held.output.ndim == 1:
        return held
    assert held.chosen is not None
    return replace(held, output=held.output[:, k], chosen=held.chosen[:, k])


def joined(results: Sequence[_Result]) -> _Result:
    """The results of k classes as one, k being the second axis of the arrays that differ among them."""
    first = results[0]
    stacked = {
        name: _each(lambda *values: np.stack(values, axis=1), *(getattr(one, name) for one in results))
        for name in _ranked(first)
    }
    if isinstance(first.target, Chosen) and first.target.output is not None:
        # The classes of a result know the name of their output.
        stacked["target"] = chosen_classes(stacked["target"], first.target.output)
    sums = {name: np.stack([_sums(one)[name] for one in results], axis=1) for name in _sums(first)}
    return replace(first, **stacked, completeness=Completeness(**sums))


def of_rank(result: _Result, k: int) -> _Result:
    """The result of the k-th class of each sample. Raises AnalysisError where one scalar of each is explained."""
    if result.output.ndim != 2:
        raise AnalysisError(
            "the result explains one scalar of each sample and has no ranks. Fix: explain Target(top=3)"
        )
    own = {name: _each(lambda value: value[:, k], getattr(result, name)) for name in _ranked(result)}
    sums = {name: value[:, k] for name, value in _sums(result).items()}
    return replace(result, **own, completeness=Completeness(**sums))


def _sums(result: Attribution) -> dict[str, np.ndarray]:
    assert result.completeness is not None
    return vars(result.completeness)


def _ranked(result: Attribution) -> list[str]:
    return [field.name for field in fields(result) if field.name in _RANKED]


def _each(change: Callable[..., np.ndarray], *values: Any) -> Any:
    """Arrays, or dicts of them, changed; None stays None."""
    if isinstance(values[0], Mapping):
        return {name: change(*(value[name] for value in values)) for name in values[0]}
    return None if values[0] is None else change(*values)
