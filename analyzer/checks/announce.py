"""Print the progress of a long check to standard error, unless the caller passes `progress`."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from converters.system.arguments import bind
from converters.system.progress_lines import ProgressLines

# Seconds of work before the first line.
PATIENCE = 2.0

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def announces(doing: str) -> Callable[[Callable[_Parameters, _Result]], Callable[_Parameters, _Result]]:
    """Give a function whose keyword `progress` is called with each step its default: lines on standard error.

    doing: such as "checking", at the head of every line. `progress=None` writes the lines, `progress=False` nothing.
    """

    def decorate(function: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
        signature = inspect.signature(function)

        @wraps(function)
        def run(*args: _Parameters.args, **given: _Parameters.kwargs) -> _Result:
            bound = bind(function.__name__, signature, args, given)
            progress = bound.arguments.get("progress")
            if progress is False:
                bound.arguments["progress"] = None
            if progress is not None:
                return function(*bound.args, **bound.kwargs)
            lines = ProgressLines(doing, _write, PATIENCE)
            bound.arguments["progress"] = _steps(doing, lines)
            with lines.running():
                return function(*bound.args, **bound.kwargs)

        return run

    return decorate


def _steps(doing: str, lines: ProgressLines) -> Callable[[str], None]:
    return lambda step: lines.begin(f"{doing}: {step}")


def _write(line: str) -> Any:
    # Whoever runs without standard error, such as a service, reads no lines.
    if sys.stderr is not None:
        print(f"onnxplain: {line}", file=sys.stderr, flush=True)
