"""The rows of a batch: those that are explained together, and the columns that they are put together to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analyzer.data.columns import ERROR, Column
from analyzer.data.requests import is_class
from analyzer.errors import AnalysisError
from analyzer.graph.samples.arrangement import FIRST
from analyzer.methods.result import Attribution
from analyzer.types import Arrays
from converters.errors import one_line


@dataclass
class FoundRows:
    """The rows of a batch that one call explained, in their order."""

    rows: list[int]
    numbers: Arrays
    arrays: Arrays


def with_and_without_class(rows: list[int], targets: Sequence[Any] | None) -> list[list[int]]:
    """Return the samples that name their class, and those whose highest class is explained."""
    if targets is None:
        return [rows]
    named = [row for row in rows if is_class(targets[row])]
    others = [row for row in rows if not is_class(targets[row])]
    return [part for part in (named, others) if part]


def filled_columns(columns: Sequence[Column], errors: Sequence[str], found: Sequence[FoundRows]) -> Arrays:
    """Return the columns with the rows of all calls filled in."""
    filled = {column.name: column.empty(len(errors)) for column in columns}
    filled[ERROR][:] = errors
    for part in found:
        for name, array in {**part.numbers, **part.arrays}.items():
            if filled[name].dtype == object:
                for row, one in zip(part.rows, array, strict=True):
                    filled[name][row] = one
            else:
                filled[name][part.rows] = array
    return filled


def reason_of(error: Exception) -> str:
    """Return the message of an error on one line; with its type, where it is none of onnxplain."""
    own = isinstance(error, AnalysisError) or type(error).__module__.startswith("converters")
    return one_line(error) if own else f"{type(error).__name__}: {one_line(error)}"


def refuse_other_axes(result: Attribution, inputs: Arrays) -> None:
    """Raise AnalysisError where the model holds the samples of an input along another axis than its first."""
    held = result.arrangement
    assert held is not None
    for name in inputs:
        if name in held.wrapped or held.spans.get(name, FIRST) != FIRST:
            raise AnalysisError(
                f"expected the samples of {name!r} along its first axis, the model holds them along another. Fix: put "
                "a Transpose before the model, or explain each call with the method itself"
            )
