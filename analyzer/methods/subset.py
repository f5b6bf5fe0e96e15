"""Take some samples out of a result: `result[2]`, `result[:3]`, `result[[0, 2]]`.

From a result and an index to a result of the same class that holds these samples. Nothing is computed again, except
bias terms, when they are asked for. Refuses results whose samples are explained as one, and fields whose axis of
samples is not known.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from analyzer.errors import AnalysisError
from analyzer.methods.completeness import Completeness, sample_sums

if TYPE_CHECKING:
    from analyzer.methods.result import Attribution

_Result = TypeVar("_Result", bound="Attribution")

# Fields with an entry, or a row, for each sample.
_ROWS = frozenset(
    {
        "output",
        "target",
        "maps",
        "classes",
        "complete_map",
        "input_totals",
        "unplaced_total",
        "converged",
        "spent",
        "interval_error",
        "scatter",
        "map_error",
        "map_change",
        "delta_error",
        "ranks",
        "attribution_error",
        "layer_map",
    }
)
# Fields that are shaped like the inputs, which the user's model may hold in another order of axes.
LIKE_INPUTS = frozenset({"attributions", "baseline", "beside", "standard_error"})
# Fields of the whole result.
_SHARED = frozenset(
    {
        "signed",
        "wrt",
        "channel_axes",
        "evaluations",
        "method",
        "settings",
        "seconds",
        "class_names",
        "samples",
        "joint",
        "note",
        "arrangement",
        "terms",
        "unplaced",
        "layer",
        "embedded",
    }
)
# The sums of float32 terms differ by their rounding, those along a wrong axis by their size.
_ROUNDING = 1e-3


def count_of(result: Attribution) -> int:
    """Return the number of samples of a result."""
    return len(np.atleast_1d(result.output))


def subset(result: _Result, key: Any) -> _Result:
    """Return the result of some of the samples.

    key: the index of a sample, a slice, or a list or an array of indices or booleans.
    Raises IndexError for a sample that is not there, TypeError for another key, AnalysisError where the samples cannot
    be taken apart.
    """
    if result.joint or result.samples == "joint":
        raise AnalysisError(
            "the samples depend on one another and are explained as one, so the result has no subset. Fix: use the "
            "whole result"
        )
    rows = rows_of(key, count_of(result))
    cut = {one.name: _cut(result, one.name, rows) for one in fields(result)}
    if "spent" in cut:
        cut["evaluations"] = int(np.max(cut["spent"]))
    return replace(result, **cut)


def rows_of(key: Any, count: int) -> np.ndarray:
    """Return the indices of the samples that a key selects, of `count`. Raises IndexError and TypeError."""
    if isinstance(key, slice):
        found = np.arange(count)[key]
    elif isinstance(key, (list, np.ndarray)) and np.ndim(key) == 1:
        found = np.asarray(key)
        if found.dtype == bool:
            if len(found) != count:
                raise IndexError(
                    f"got {len(found)} booleans for {count} samples. Fix: give one for each sample"
                )
            found = np.flatnonzero(found)
    else:
        try:
            found = np.array([operator.index(key)])
        except TypeError:
            found = np.array([""])
    if found.size and found.dtype.kind not in "iu":
        raise TypeError(
            f"expected an index, a slice or a list of indices of samples, got {key!r}. Fix: write result[0], "
            "result[:3] or result[[0, 2]]"
        )
    if not found.size:
        raise IndexError(f"{key!r} selects none of the {count} samples. Fix: select at least one")
    if found.min() < -count or found.max() >= count:
        raise IndexError(
            f"expected samples from 0 to {count - 1}, got {key!r}. Fix: give the index of a sample of the result"
        )
    rows: np.ndarray = found.astype(np.intp) % count
    return rows


def _cut(result: Attribution, name: str, rows: np.ndarray) -> Any:
    """Return the value of a field for some samples."""
    value, count = getattr(result, name), count_of(result)
    if value is None or name in _SHARED or isinstance(value, (str, bool, int, float)):
        return value
    if name == "completeness":
        return Completeness(**{key: array[rows] for key, array in vars(value).items()})
    if name == "contributions":
        return tuple(replace(one, total=one.total[rows]) for one in value)
    if name == "bias_terms":
        return _terms(value, {one.tensor: one.total for one in result.contributions}, rows)  # type: ignore[attr-defined]
    if name in LIKE_INPUTS:
        return _like_inputs(result, name, value, rows)
    if name in _ROWS:
        return _each(value, lambda _, array: _rows(name, array, rows, count), "")
    raise AnalysisError(
        f"{type(result).__name__} has the field {name!r}, whose axis of samples is not known. Fix: use the whole result"
    )


def _each(value: Any, change: Any, name: str) -> Any:
    """Arrays in a list, in a dict by name, or alone under `name`, changed; None stays None."""
    if value is None:
        return None
    if isinstance(value, list):
        return [_each(one, change, name) for one in value]
    if isinstance(value, Mapping):
        return {key: _each(one, change, key) for key, one in value.items()}
    return change(name, value)


def _rows(name: str, array: Any, rows: np.ndarray, count: int) -> Any:
    if isinstance(array, tuple):
        return tuple(array[row] for row in rows) if array else array
    if np.ndim(array) == 0 or len(array) != count:
        raise _unknown_axis(name, array, count)
    return array[rows]


def _like_inputs(result: Attribution, field: str, value: Any, rows: np.ndarray) -> Any:
    """Cut arrays that are shaped like the inputs; a baseline of one row, or of one sample's shape, is that of all."""
    count, shown = count_of(result), result.arrangement
    moved = (
        shown is not None and np.ndim(result.output) < 2 and not (field == "attributions" and result.is_map)
    )
    attributed = result.by_tensor(result.attributions)

    def change(name: str, array: Any) -> Any:
        array = np.asarray(array)
        if field == "baseline" and array.ndim < np.ndim(attributed.get(name, array)):
            return array
        first = shown.first(name, array) if moved and shown is not None else array
        if field == "baseline" and len(first) == 1:
            return array
        if first.ndim == 0 or len(first) != count:
            raise _unknown_axis(field, array, count)
        return shown.back(name, first[rows]) if moved and shown is not None else first[rows]

    return _each(value, change, next(iter(attributed), ""))


def _terms(terms: Any, totals: Mapping[str, np.ndarray], rows: np.ndarray) -> Any:
    """Return the bias terms of some samples: computed where they were, else when they are asked for."""
    from analyzer.methods.full_gradient.result import Terms

    def cut(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: _term(name, array, totals[name], rows) for name, array in arrays.items()}

    if not isinstance(terms, Terms):
        return cut(terms)
    if terms.computed is not None:
        with suppress(AnalysisError):  # A term that cannot be cut is refused when it is asked for.
            return Terms.from_archive((tuple(terms), cut(terms.computed)))
    return Terms(tuple(terms), lambda: cut({name: terms[name] for name in terms}))


def _term(name: str, array: np.ndarray, total: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Cut the term of a tensor along the axis of the samples, whose rows sum to the totals of the samples."""
    count = len(total)
    for axis in (axis for axis, size in enumerate(array.shape) if size == count):
        first = np.moveaxis(array, axis, 0)
        limit = _ROUNDING * np.maximum(sample_sums(np.abs(first)), np.finfo(np.float64).tiny)
        if (np.abs(sample_sums(first) - total) <= limit).all():
            return np.ascontiguousarray(np.moveaxis(first[rows], 0, axis))
    raise _unknown_axis(f"bias_terms[{name!r}]", array, count)


def _unknown_axis(name: str, array: Any, count: int) -> AnalysisError:
    return AnalysisError(
        f"{name} has the shape {np.shape(array)}, in which the {count} samples are not found. Fix: take the "
        "samples out of the array of the whole result"
    )
