"""Compare an emitted explainer with the method in Python, on an example.

From an example and Python's result to a model in the opset and the precision of its file, with the distance from
Python. Refuses a file whose numbers differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from analyzer.errors import ExportError, UndefinedResult
from analyzer.explainer.axes import with_stated_axes
from analyzer.explainer.description import Port
from analyzer.explainer.emission import EmittedExplainer, emit, state_outputs
from analyzer.explainer.example import Example
from analyzer.explainer.files import session_of
from analyzer.explainer.forms import FileForm, lowered_to
from analyzer.explainer.runtimes import to_float16
from analyzer.methods.exporting import Draw, ExplainerGraph
from analyzer.methods.result import Attribution
from analyzer.types import Arrays
from converters.errors import one_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

NEAR = 1e-3
"""The relative L2 distance from Python beyond which a file is not written. The usual one is below 1e-6."""
NEAR_IN_HALVES = 0.2
"""The same of weights in float16. Their rounding moves a network of ReLU by about 1e-3, and its gradient by 1e-2."""
NEAR_AT_POINTS = 5e-2
"""The same of methods that evaluate points. A batch of points, or a Loop, may run on other kernels of convolutions than
Python's, with which a value that is 0 up to rounding lies on the other side of a ReLU. 9e-3 was measured."""


@dataclass(frozen=True)
class Compared:
    """A file that gives what Python gives: the model, what was emitted, its inputs and outputs, and the distance.

    lowered: {op: number of nodes} that were replaced for a runtime.
    """

    proto: onnx.ModelProto
    emitted: EmittedExplainer
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    error: float
    lowered: Mapping[str, int]


def compare(
    example: Example, found: Attribution, form: FileForm, *, at_once: int | None, draw: Draw
) -> Compared:
    """Emit a method in the opset and the precision of its file, and compare the file with Python.

    Raises ExportError where they differ, UndefinedResult where the file's results are NaN.
    """
    feeds, drawn = example.bound.feeds, draw == "inside"
    values = example.bound.outputs()
    for safe in (False, True):
        # Where a cotangent of 0 meets an infinite derivative, the results are NaN: again with these kept apart.
        graph = ExplainerGraph(example.bound, at_once, draw, safe)
        emitted = emit(graph, example.method, example.options, sized=example.sized)
        inputs, outputs = emitted.inputs, with_shapes(emitted, found, values)
        state_outputs(emitted.proto, outputs)
        proto, lowered = lowered_to(emitted.proto, form)
        error = distance(proto, emitted, feeds, found, values, drawn=drawn)
        if error is None:
            continue
        if form.fp16:
            proto = to_float16(proto)
            error = distance(proto, emitted, feeds, found, values, drawn=drawn, most=NEAR_IN_HALVES)
            assert error is not None
        if example.spans:
            inputs, outputs = with_stated_axes(proto, inputs, outputs, example.spans)
        return Compared(proto, emitted, inputs, outputs, error, lowered)
    raise UndefinedResult("the explanation of the example is not finite. Fix: give other inputs= (--inputs)")


def with_shapes(emitted: EmittedExplainer, found: Attribution, values: Arrays) -> tuple[Port, ...]:
    """Return the outputs with the shapes that Python's results have, where emission did not know them.

    values: of the model's own outputs.
    """
    inputs = [port for port in emitted.inputs if port.role == "model"]
    free = any(not isinstance(size, int) for port in inputs for size in port.shape[1:])
    batch = inputs[0].shape[0] if inputs and inputs[0].shape else "batch"
    ports = []
    for port in emitted.outputs:
        array = expected(port, found, values)
        shape = port.shape
        if array is not None and len(shape) != array.ndim:
            own = [f"{port.role}_{axis}" if free else size for axis, size in enumerate(array.shape)]
            shape = (batch, *own[1:]) if array.ndim else ()
        ports.append(replace(port, shape=shape))
    return tuple(ports)


def distance(
    proto: onnx.ModelProto,
    emitted: EmittedExplainer,
    feeds: Arrays,
    found: Attribution,
    values: Arrays,
    *,
    drawn: bool,
    most: float = NEAR,
) -> float | None:
    """Return the largest relative L2 distance of a result of the file from Python's.

    proto: the emitted model as it is written. values: of the model's own outputs.
    drawn: whether the file draws noise, which Python does not know.
    most: the largest distance to allow of a method that evaluates the input alone.
    None where the file's results are NaN, and Python's are not. Raises ExportError where they differ.
    """
    session = session_of(proto)
    names = [one.name for one in session.get_outputs()]
    arrays = dict(zip(names, _ran(session, feeds), strict=True))
    rows = slice(0, 1) if emitted.exported.row_dependent else slice(None)
    worst, where = 0.0, ""
    for port in emitted.outputs:
        wanted = expected(port, found, values)
        if wanted is None or (drawn and emitted.exported.row_dependent and port.of):
            continue
        own = arrays[port.name][rows].astype(np.float64)
        if np.isnan(own).any() and not np.isnan(wanted[rows]).any():
            return None
        error = _distance(own, wanted[rows].astype(np.float64))
        if error > worst:
            worst, where = error, port.name
    pointwise = emitted.exported.delta is not None or emitted.exported.row_dependent
    if worst > (max(most, NEAR_AT_POINTS) if pointwise else most):
        raise ExportError(
            f"the file's {where!r} differs from Python's by a relative L2 of {worst:.1e} on the example. "
            "Fix: give other inputs= (--inputs), or report the model as a defect of onnxplain"
        )
    return worst


def _ran(session: InferenceSession, feeds: Arrays) -> list[np.ndarray]:
    try:
        return list(session.run(None, dict(feeds)))
    except Exception as error:  # The classes of ONNX Runtime's errors have no common base.
        raise ExportError(
            f"ONNX Runtime does not run the file on the example ({one_line(error)}). Fix: give inputs= (--inputs) that "
            "the model takes"
        ) from error


def expected(port: Port, found: Attribution, values: Arrays) -> np.ndarray | None:
    """Return Python's array for an output; None for an output that Python does not have."""
    if port.role == "output":
        return values.get(port.name)
    own: dict[str, Any] = {
        "attribution": found.attributions,
        "map": found.map,
        "complete_map": getattr(found, "complete_map", None),
    }
    if port.role in own:
        return np.asarray(found.by_tensor(own[port.role])[port.of])
    if port.role == "explained":
        return np.asarray(found.output)
    return None if port.role != "explained_target" or found.target is None else np.asarray(found.target)


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest relative L2 distance of a sample, without a floor: a whole gradient may be tiny.

    Infinite where infinities or NaN differ.
    """
    if a.shape != b.shape:
        return float("inf")
    odd = ~np.isfinite(b)
    if (odd != ~np.isfinite(a)).any() or not np.array_equal(a[odd], b[odd], equal_nan=True):
        return float("inf")
    a, b = (np.where(odd, 0.0, x).reshape(len(x), -1) for x in (a, b))
    size = np.linalg.norm(b, axis=1)
    off = np.linalg.norm(a - b, axis=1)
    return float(np.max(off / np.maximum(size, np.finfo(np.float32).tiny), initial=0.0))
