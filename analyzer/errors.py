"""The errors of `analyzer`.

AnalysisError
├── UnsupportedOp       a node on the differentiable path has no rule
├── UnknownTensor       a tensor name that the graph does not have
├── InputError          an input of the wrong name or dtype, or with NaN
│   └── ShapeError      an input or baseline of the wrong shape
├── TargetError         an output, class index or weights that the model does not have
├── MissingDependency   a package that a backend or method needs is not installed (also an ImportError)
├── UndefinedResult     the output, a gradient or a sum of them is NaN or infinite
├── NotEnoughMemory     a single sample needs more memory than may be used
├── BackendError        a backend could not run the model; the message says on which node
├── VerificationError   the explained output is not that of the user's file
├── ExportError         an explanation cannot be written as an ONNX file, or a runtime cannot run it
├── NothingToCompare    a check has one side alone; the message names what to install
└── Disagreement        raised by `report.raise_for_disagreement()`
    └── NotEquivalent   raised by `analyzer.testing.assert_equivalent` (also an AssertionError)
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from converters.errors import Note as Note
from converters.system.text import printable


class InputWarning(Note):
    """Inputs of another range than the model's preprocessing makes: the result may be that of another picture."""


_OWN = frozenset({"analyzer", "converters", "onnxplain", "contextlib"})


# Remarks that were made within a block, without their numbers.
_MADE: ContextVar[set[tuple[type[Warning], str]] | None] = ContextVar("remarks", default=None)


@contextmanager
def each_note_once(made: set[tuple[type[Warning], str]]) -> Iterator[None]:
    """Within the block, leave out remarks that differ from those in `made` in their numbers alone; add new ones."""
    token = _MADE.set(made)
    try:
        yield
    finally:
        _MADE.reset(token)


def note(message: str, kind: type[Warning] = Note) -> None:
    """Warn with a Note at the line outside this package that made the call. kind: a kind of warning, in its place."""
    if (made := _MADE.get()) is not None:
        remark = (kind, re.sub(r"[\d.]+", "#", message))
        if remark in made:
            return
        made.add(remark)
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OWN:
        level, frame = level + 1, frame.f_back
    warnings.warn(printable(message), kind, stacklevel=level)


class AnalysisError(Exception):
    """Base of every error that `analyzer` raises for a user's model or input."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(message))


class UnsupportedOp(AnalysisError):
    """A node between the inputs and the target has no rule for what was asked."""


class UnknownTensor(AnalysisError):
    """The graph has no tensor of that name."""


class InputError(AnalysisError):
    """An input is missing, unknown, of the wrong dtype, or holds NaN or infinity."""


class ShapeError(InputError):
    """An input or baseline has a shape that the model does not take."""


class TargetError(AnalysisError):
    """The target names an output, an index or weights that the model does not have."""


class MissingDependency(AnalysisError, ImportError):
    """A package that a backend or method needs is not installed; the message names the extra."""


class UndefinedResult(AnalysisError):
    """The explained output, a gradient or a sum of them is NaN or infinite; the message names the node, where known."""


class NotEnoughMemory(AnalysisError):
    """A single sample needs more memory than may be used; the message names the option that raises the limit."""


class BackendError(AnalysisError):
    """A backend could not run the model; the message names the node and the cause."""


class VerificationError(AnalysisError):
    """The explained output is not that of the user's file; the message names the first node that differs."""


class ExportError(AnalysisError):
    """The explanation cannot be written as an ONNX file, or the file does not suit the runtime."""


class NothingToCompare(AnalysisError):
    """A check has one side alone; the message names what to install."""


class Disagreement(AnalysisError):
    """Backends, or two models, disagree beyond the tolerance."""


class NotEquivalent(Disagreement, AssertionError):
    """A test's models disagree; the message is the table of the report."""


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Return the class that had another name, with a DeprecationWarning; the old name works for one release."""
        if name == "MissingFramework":
            warnings.warn(f"{__name__}.{name} is now MissingDependency", DeprecationWarning, stacklevel=2)
            return MissingDependency
        raise AttributeError(f"{__name__} has no {name!r}. Fix: take a name of the tree in its docstring")
