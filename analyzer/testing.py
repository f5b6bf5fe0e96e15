"""`assert_equivalent`: a model's backends, or two models, held against each other in a test of a test suite.

From models as they are at hand (networks of PyTorch, Keras or TensorFlow, what `convert` returned, ONNX, paths) and a
batch of inputs to a Report; where it does not pass, to an AssertionError whose message is the report's table. Any test
runner will do: no plugin of pytest is needed. Refuses what `convert`, `check` and `compare` refuse.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from analyzer.backends import Differentiable
from analyzer.backends.networks import examples
from analyzer.checks import Report, check, compare
from analyzer.checks.comparison import STEPS
from analyzer.checks.tolerances import Tolerance
from analyzer.errors import AnalysisError, NotEquivalent
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Inputs
from converters import ConversionError, Model, convert, load


def assert_equivalent(
    model: Any,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    tolerance: Tolerance | None = None,
    wrt: Sequence[str] | None = None,
    steps: int = STEPS,
    straight_through: bool = False,
    referee: bool | None = None,
    backends: Sequence[str] | None = None,
    backend: str | None = None,
    names: tuple[str, str] | None = None,
    inputs_of_b: Mapping[str, str] | None = None,
    trust: bool = False,
) -> Report:
    """Assert that a model's backends agree, its original network among them, or that two models are one function.

    model: one model, for `check`, or a pair of them, for `compare`: networks, which are converted with the first sample
        as their example, or anything that `check` or `compare` takes, or a path that `convert` takes.
    inputs: of the first model, {name: array} where it has several. The second is fed the same numbers in its own
        layout; where it does not say which, the one that comes nearest to the first model is taken.
    target, tolerance, wrt, steps, straight_through, referee: as for `check` and `compare`.
    backends: of one model. backend, names, inputs_of_b: of a pair; the classes or files name the two where
        `names` does not.
    trust: load paths of files that can run code, as for `convert`.
    Returns the report. Raises NotEquivalent, an AssertionError with the table of the report, where it does not pass;
    ConversionError and AnalysisError where it cannot be made.
    """
    __tracebackhide__ = True  # pytest then shows the line of the test
    feeds = _arrays(inputs)
    common: dict[str, Any] = {
        "tolerance": tolerance, "wrt": wrt, "steps": steps, "straight_through": straight_through,
        "referee": referee,
    }  # fmt: skip
    if isinstance(model, (tuple, list)):
        _refuse({"backends": backends}, "one model")
        pair = {"backend": backend or "onnxruntime", "inputs_of_b": inputs_of_b}
        report = _compared(model, feeds, target, names, {**common, **pair}, trust)
    else:
        _refuse({"backend": backend, "names": names, "inputs_of_b": inputs_of_b}, "a pair of models")
        report = check(_converted(model, _first(feeds), trust), feeds, target, backends=backends, **common)
    if not report.passed:
        raise NotEquivalent(report.to_text())
    return report


def converted_for(model: Any, inputs: Inputs, trust: bool = False) -> Any:
    """Return a model that methods take; a network is converted with the first sample as its example."""
    return model if isinstance(model, Differentiable) else _converted(model, _first(_arrays(inputs)), trust)


def _refuse(options: Mapping[str, object], kind: str) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise AnalysisError(f"`{given[0]}` is an option of {kind}. Fix: omit it")


def _compared(
    models: Sequence[Any],
    feeds: Inputs,
    target: TargetLike,
    names: tuple[str, str] | None,
    options: Mapping[str, Any],
    trust: bool,
) -> Report:
    """The comparison in the layout of the second model in which it passes, else in which the outputs come nearest."""
    if len(models) != 2:
        raise AnalysisError(f"expected a pair of models, got {len(models)}. Fix: give (first, second)")
    first, second = models
    a = first if isinstance(first, Differentiable) else _converted(first, _first(feeds), trust)
    reports = []
    for b in _candidates(second, _first(feeds), options["inputs_of_b"], trust):
        report = compare(a, b, feeds, target, names=names or _names(first, second), **options)
        if report.passed:
            return report
        reports.append(report)
    return min(reports, key=_output_distance)


def _output_distance(report: Report) -> float:
    sizes = [row["relative_l2"] for row in report.rows if row["quantity"] == "output"]
    return max((size if size == size else np.inf for size in sizes), default=np.inf)


def _candidates(
    model: Any, example: Inputs, names: Mapping[str, str] | None, trust: bool
) -> Iterator[Model | Differentiable]:
    """The second model, converted in each layout of the inputs that it takes; once, where it states its inputs.

    Raises the ConversionError of the inputs as given where no layout will do.
    """
    if _is_ready(model):
        yield model if isinstance(model, Differentiable) else _converted(model, example, trust)
        return
    try:
        yield convert(model)
        return
    except ConversionError:
        pass  # A network that does not state its inputs; one that cannot be converted fails again below.
    failure: ConversionError | None = None
    found = False
    for given in examples(example, names):
        try:
            converted = convert(model, given)
        except ConversionError as error:
            failure = failure or error
            continue
        found = True
        yield converted
    if not found:
        assert failure is not None
        raise failure


def _is_ready(model: Any) -> bool:
    """Whether a model is no network, whose conversion may need an example."""
    return isinstance(model, (Model, Differentiable, onnx.ModelProto, str, os.PathLike))


def _converted(model: Any, example: Inputs, trust: bool) -> Model:
    """A model as `check` and `compare` take it; a network, or a path to one, with its source."""
    if isinstance(model, Model):
        return model
    if isinstance(model, onnx.ModelProto) or _is_path(model, ".onnx"):
        return load(model)
    return convert(model, trust=trust) if _is_path(model) else convert(model, example)


def _is_path(model: Any, suffix: str = "") -> bool:
    return isinstance(model, (str, os.PathLike)) and os.fspath(model).lower().endswith(suffix)


def _names(first: Any, second: Any) -> tuple[str, str]:
    """What the report calls the two, where that tells them apart."""
    a, b = (_name(model) for model in (first, second))
    return (a, b) if a and b and a != b else ("a", "b")


def _name(model: Any) -> str:
    if isinstance(model, (str, os.PathLike)):
        return Path(model).stem
    return "" if _is_ready(model) else type(model).__name__


def _arrays(inputs: Any) -> Inputs:
    """Arrays and tensors of any framework as NumPy arrays."""
    if isinstance(inputs, Mapping):
        return {name: _array(value) for name, value in inputs.items()}
    return _array(inputs)


def _array(value: Any) -> np.ndarray:
    # A tensor of PyTorch may need a gradient, or lie on another device.
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _first(feeds: Inputs) -> Inputs:
    """The first sample: an example that leaves a network's batch free."""
    if isinstance(feeds, Mapping):
        arrays: Arrays = {name: _sample(array) for name, array in feeds.items()}
        return arrays
    return _sample(feeds)


def _sample(array: np.ndarray) -> np.ndarray:
    return array[:1] if array.ndim else array
