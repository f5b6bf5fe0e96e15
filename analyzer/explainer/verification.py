"""Compare an emitted explainer with the method in Python, on an example.

From a method, its settings and an emitted model to the results of a run and their distance from Python's. Refuses a
file whose numbers differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from analyzer.backends import Differentiable
from analyzer.backends.bound import Bound
from analyzer.errors import ExportError
from analyzer.explainer.emission import Emitted
from analyzer.explainer.files import session_of
from analyzer.methods.registry import Method
from analyzer.methods.result import Attribution
from analyzer.target.target import TargetLike
from analyzer.types import Arrays
from converters.errors import one_line

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

NEAR = 1e-3
"""The relative L2 distance from Python beyond which a file is not written. The usual one is below 1e-6."""
NEAR_IN_LOOPS = 5e-2
"""The same where a Loop evaluates points: its convolutions have other kernels, with which a value that is 0 up to
rounding may come to lie on the other side of a ReLU. 5e-3 was measured."""


@dataclass(frozen=True)
class Compared:
    """arrays: the outputs of the file at the example. error: the largest relative L2 distance from Python."""

    arrays: Arrays
    error: float


def compare_with_python(
    method: Method,
    fn: Differentiable,
    bound: Bound,
    target: TargetLike,
    settings: Mapping[str, Any],
    emitted: Emitted,
    proto: onnx.ModelProto,
    *,
    drawn: bool,
) -> Compared | None:
    """Run the file and the method at the example. None where the file's results are NaN, and Python's are not.

    proto: the emitted model, in the opset of the file. drawn: whether the file draws noise, which Python does not know.

    Raises ExportError where they differ.
    """
    session = session_of(proto)
    names = [one.name for one in session.get_outputs()]
    arrays = dict(zip(names, _ran(session, bound.feeds), strict=True))
    found = method.run(fn, bound.feeds, target, **settings)
    rows = slice(0, 1) if emitted.exported.row_dependent else slice(None)
    worst, where = 0.0, ""
    for port in emitted.outputs:
        expected = _expected(port.role, port.of, found)
        if expected is None or (drawn and emitted.exported.row_dependent and port.of):
            continue
        own = arrays[port.name][rows].astype(np.float64)
        if np.isnan(own).any() and not np.isnan(expected[rows]).any():
            return None
        error = _distance(own, expected[rows].astype(np.float64))
        if error > worst:
            worst, where = error, port.name
    looped = any(node.op_type == "Loop" for node in emitted.proto.graph.node)
    if worst > (NEAR_IN_LOOPS if looped else NEAR):
        raise ExportError(
            f"the file's {where!r} differs from Python's {method.name} by a relative L2 of {worst:.1e} on the example. "
            "Fix: give other inputs= (--inputs), or report the model as a defect of onnxplain"
        )
    return Compared(arrays, worst)


def _ran(session: InferenceSession, feeds: Arrays) -> list[np.ndarray]:
    try:
        return list(session.run(None, dict(feeds)))
    except Exception as error:  # The classes of ONNX Runtime's errors have no common base.
        raise ExportError(
            f"ONNX Runtime does not run the file on the example ({one_line(error)}). Fix: give inputs= (--inputs) that "
            "the model takes"
        ) from error


def _expected(role: str, of: str, found: Attribution) -> np.ndarray | None:
    """What Python has for an output; None for outputs that are compared elsewhere or in no way."""
    if role == "attribution":
        return np.asarray(found.by_tensor(found.attributions)[of])
    if role == "map":
        return np.asarray(found.by_tensor(found.map)[of])
    if role == "complete_map":
        whole: Any = getattr(found, "complete_map", None)
        return np.asarray(found.by_tensor(whole)[of])
    if role == "explained":
        return np.asarray(found.output)
    if role == "explained_target" and found.target is not None:
        return np.asarray(found.target)
    return None


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest relative L2 distance of a sample. Infinities and NaN must be the same."""
    if a.shape != b.shape:
        return float("inf")
    odd = ~np.isfinite(b)
    if (odd != ~np.isfinite(a)).any() or not np.array_equal(a[odd], b[odd], equal_nan=True):
        return float("inf")
    a, b = (np.where(odd, 0.0, x).reshape(len(x), -1) for x in (a, b))
    size = np.linalg.norm(b, axis=1)
    off = np.linalg.norm(a - b, axis=1)
    return float(np.max(off / np.maximum(size, np.finfo(np.float32).tiny), initial=0.0))
