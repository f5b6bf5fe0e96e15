"""Compare an explanation with a stored one, so that a test shows when a model changes its reasons.

From an Attribution and a file of an earlier one to the differences as lines: method and settings, explained class,
output, attributions and maps, each sample by itself. Refuses nothing: whatever cannot be compared is a difference.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.checks.metrics import relative_distance
from analyzer.errors import AnalysisError, NotEquivalent
from analyzer.methods.registry import METHODS
from analyzer.methods.result import Attribution
from analyzer.target.target import TargetLike
from analyzer.testing import converted_for
from analyzer.types import Inputs

# Far above the rounding of another processor, far below a change of reasons that a picture shows.
TOLERANCE = 1e-2


class NoStoredExplanation(AnalysisError, AssertionError):
    """There is no stored explanation to compare with."""


def assert_explanation(
    model: Any,
    inputs: Inputs,
    stored: str | os.PathLike[str],
    method: str = "full-grad",
    target: TargetLike = None,
    *,
    tolerance: float = TOLERANCE,
    update: bool = False,
    trust: bool = False,
    **settings: Any,
) -> Attribution:
    """Assert that a model gives the explanation that is stored in a file.

    model, inputs, target: as for `assert_equivalent`. stored: an .npz file that `Attribution.save` wrote.
    method: the name of a method, such as "integrated-gradients". settings: those of the method.
    tolerance: of the relative L2 of each sample's output, attributions and map.
    update: write the file in place of the comparison. trust: as for `convert`.
    Returns the explanation. Raises NotEquivalent with the differences, NoStoredExplanation where there is no file.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    if method not in METHODS:
        raise AnalysisError(f"unknown method {method!r}. Fix: choose from {', '.join(METHODS)}")
    path = Path(stored)
    if not update and not path.is_file():
        raise NoStoredExplanation(
            f"no explanation is stored at {path}. Fix: run once with update=True (pytest --onnxplain-update), look at "
            "it, and commit the file"
        )
    found = METHODS[method].run(converted_for(model, inputs, trust), inputs, target, **settings)
    if update:
        path.parent.mkdir(parents=True, exist_ok=True)
        found.save(path)
        return found
    if lines := [*differences(Attribution.load(path), found, tolerance)]:
        told = "\n".join(f"  {line}" for line in lines)
        raise NotEquivalent(
            f"the explanation is not the stored one, {path}:\n{told}\n"
            "Fix: correct the model, or accept the new explanation with update=True (pytest --onnxplain-update)"
        )
    return found


def differences(stored: Attribution, found: Attribution, tolerance: float) -> Iterator[str]:
    """Yield what differs between two explanations, a line each."""
    if stored.method != found.method or dict(stored.settings) != dict(found.settings):
        yield f"method {_described(stored)}, now {_described(found)}"
        return
    if stored.output.shape != found.output.shape:
        yield f"{len(stored.output)} samples are stored, now {len(found.output)}"
        return
    if not np.array_equal(_classes(stored), _classes(found)):
        yield from _other_classes(_classes(stored), _classes(found))
    for sample in range(len(found.output)):
        yield from _apart("output", sample, stored.output[sample], found.output[sample], tolerance)
    for what in ("attributions", "map"):
        mine, theirs = (_arrays(one, getattr(one, what)) for one in (stored, found))
        if [array.shape for array in mine.values()] != [array.shape for array in theirs.values()]:
            yield f"{what} of shape {_shapes(mine)} are stored, now {_shapes(theirs)}"
            continue
        # A model that was exported again may have other names.
        for (name, before), after in zip(mine.items(), theirs.values(), strict=True):
            label = f"{what} at {name!r}" if len(mine) > 1 else what
            for sample in range(len(before)):
                yield from _apart(label, sample, before[sample], after[sample], tolerance)


def _apart(what: str, sample: int, before: Any, after: Any, tolerance: float) -> Iterator[str]:
    size = relative_distance(np.asarray(after), np.asarray(before))
    if not size <= tolerance:
        values = f", {float(before):.4g} is stored, now {float(after):.4g}" if np.ndim(before) == 0 else ""
        yield f"sample {sample}: {what}, relative L2 {size:.1e} > {tolerance:.0e}{values}"


def _classes(one: Attribution) -> np.ndarray:
    return np.asarray([]) if one.target is None else np.asarray(one.target)


def _other_classes(before: np.ndarray, after: np.ndarray) -> Iterator[str]:
    if before.shape != after.shape:
        yield f"targets of shape {before.shape} are stored, now {after.shape}"
        return
    for sample, (old, new) in enumerate(zip(before, after, strict=True)):
        if np.any(old != new):
            yield f"sample {sample}: class {old} is explained in the file, now {new}"


def _arrays(one: Attribution, value: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(array) for name, array in one.by_tensor(value).items()}


def _shapes(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(str(array.shape) for array in arrays.values())


def _described(one: Attribution) -> str:
    settings = ", ".join(f"{name}={value}" for name, value in one.settings.items())
    return f"{one.method}({settings})"
