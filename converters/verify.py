"""Hold a converted graph to its original: outputs on random batches, by relative L2.

Reads the canonical ModelProto, a function that runs the original, and an example; returns a Verification.
Raises VerificationFailed, which names the output and the error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx

from converters.errors import ConversionError, UnsupportedModel, VerificationFailed, one_line
from converters.model import Verification
from converters.runtime import ReferenceSession, RuntimeFailure, Session

# Norms below this per element count as rounding noise: an output of exact zeros may come out as 1e-9.
_FLOOR = 1e-6
# Half precision rounds at 1e-3 (float16) and 8e-3 (bfloat16) per operation.
_HALF_TOLERANCE = 5e-2
# A code that is rounded the other way moves an output by a quantum: kernels differ in the last bit before it.
_QUANTIZED_TOLERANCE = 5e-2
_QUANTIZERS = ("QuantizeLinear", "DynamicQuantizeLinear")

Arrays = Mapping[str, np.ndarray]
FreeAxes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Reference:
    """The original, to be run: arrays by ONNX input name in, outputs in the order of the ONNX graph out.

    `label` names framework and version. `batch` is the one batch size it accepts, None where any will do.
    `half` says that it computes in half precision, whatever its outputs are.
    """

    run: Callable[[Arrays], Sequence[np.ndarray]]
    label: str
    batch: int | None = None
    half: bool = False


def relative_l2(value: np.ndarray, expected: np.ndarray) -> float:
    """‖value − expected‖ / ‖expected‖ over finite elements; infinite where NaN or infinity stand apart."""
    v, e = value.astype(np.float64), expected.astype(np.float64)
    finite = np.isfinite(e)
    if v.shape != e.shape or not np.array_equal(v[~finite], e[~finite], equal_nan=True):
        return float("inf")
    v, e = v[finite], e[finite]
    if not np.isfinite(v).all():
        return float("inf")
    floor = _FLOOR * np.sqrt(max(e.size, 1))
    return float(np.linalg.norm(v - e) / max(np.linalg.norm(e), floor))


def verify(
    proto: onnx.ModelProto,
    reference: Reference,
    example: Arrays,
    *,
    batches: int,
    tolerance: float,
    seed: int,
    free_axes: FreeAxes | None = None,
) -> Verification:
    """Compare the graph with its original on the example and on `batches` random batches like it.

    free_axes: {input: {axis: symbol}}, the axes that every other random batch has twice as long.
    Raises VerificationFailed where an output differs by more than `tolerance` (5 % where either side
    quantizes or computes in half precision), in shape, or has no finite value to compare.
    """
    quantized = any(node.op_type in _QUANTIZERS for node in proto.graph.node)
    tolerance = max(tolerance, _QUANTIZED_TOLERANCE) if quantized else tolerance
    if reference.half or _computes_in_half(proto):
        tolerance = max(tolerance, _HALF_TOLERANCE)
    # The runtime's optimizer would put integer kernels of its own in place of a quantized graph.
    session = _session(proto, optimise=not quantized)
    worst_absolute = worst_relative = 0.0
    compared = dict.fromkeys(session.outputs, 0)
    feeds = [example, *random_batches(example, free_inputs(proto), batches, reference.batch, seed)]
    feeds[2::2] = [_stretched(given, free_axes or {}) for given in feeds[2::2]]
    for given in feeds:
        expected = _run_original(reference, given)
        try:
            values = session.run(given)
        except RuntimeFailure as failure:
            session, values = _without_kernel(proto, given, failure)
        for name, value, truth in zip(session.outputs, values, expected, strict=True):
            relative = _compare(name, value, truth, tolerance, reference.label)
            finite = np.isfinite(truth.astype(np.float64))
            compared[name] += int(finite.sum()) + (truth.size == 0)
            difference = np.abs(value.astype(np.float64) - truth.astype(np.float64))[finite]
            worst_absolute = max(worst_absolute, float(difference.max(initial=0.0)))
            worst_relative = max(worst_relative, relative)
    empty = [name for name, count in compared.items() if not count]
    if empty:
        raise VerificationFailed(
            f"output {empty[0]!r} has no finite value on any test input: give an `example` of the usual range"
        )
    return Verification(reference.label, batches, worst_absolute, worst_relative)


def _computes_in_half(proto: onnx.ModelProto) -> bool:
    """Whether a tensor of the graph is in half precision: its weights, or what a Cast makes."""
    casts = (
        attribute.i for node in proto.graph.node for attribute in node.attribute if attribute.name == "to"
    )
    kinds = {*casts, *(tensor.data_type for tensor in proto.graph.initializer)}
    return not kinds.isdisjoint({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})


def _run_original(reference: Reference, given: Arrays) -> Sequence[np.ndarray]:
    try:
        return reference.run(given)
    except ConversionError:
        raise
    except Exception as error:  # the original is the user's code
        shapes = ", ".join(f"{name} {array.shape}" for name, array in given.items())
        raise ConversionError(
            f"the original fails in {reference.label} on {shapes}: {one_line(error)}"
        ) from error


def _without_kernel(
    proto: onnx.ModelProto, given: Arrays, failure: RuntimeFailure
) -> tuple[ReferenceSession, list[np.ndarray]]:
    """ONNX's reference evaluator, and its outputs, where the runtime lacks a kernel for a type only when it runs."""
    try:
        session = ReferenceSession(proto)
        return session, session.run(given)
    except RuntimeFailure:
        raise VerificationFailed(f"ONNX Runtime cannot run the converted graph: {failure}") from failure


def _session(proto: onnx.ModelProto, optimise: bool) -> Session | ReferenceSession:
    """ONNX Runtime; ONNX's reference evaluator for types that the runtime has no kernels for."""
    try:
        return Session(proto, optimise=optimise)
    except RuntimeFailure as failure:
        try:
            return ReferenceSession(proto)
        except RuntimeFailure:
            raise UnsupportedModel(f"ONNX Runtime cannot load the converted graph: {failure}") from failure


def _compare(name: str, value: np.ndarray, truth: np.ndarray, tolerance: float, label: str) -> float:
    if value.shape != truth.shape:
        raise VerificationFailed(
            f"output {name!r} has shape {value.shape} on ONNX Runtime and {truth.shape} in {label}"
        )
    half = truth.dtype in (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
    allowed = max(tolerance, _HALF_TOLERANCE) if half else tolerance
    relative = relative_l2(value, truth)
    if not relative <= allowed:
        raise VerificationFailed(
            f"output {name!r} differs from {label} by {relative:.2g} (relative L2; allowed {allowed:.2g})"
        )
    return relative


def free_inputs(proto: onnx.ModelProto) -> frozenset[str]:
    """The inputs whose first axis is symbolic."""
    return frozenset(
        info.name
        for info in proto.graph.input
        if info.type.tensor_type.shape.dim and not info.type.tensor_type.shape.dim[0].HasField("dim_value")
    )


def random_batches(
    example: Arrays, free: frozenset[str], count: int, batch: int | None, seed: int
) -> list[dict[str, np.ndarray]]:
    """Random inputs of the example's range, of 1, 2, 3, … samples where the batch is free."""
    found = []
    for index in range(count):
        rng = np.random.default_rng(seed + index)
        size = batch or index + 1
        found.append(
            {name: _like(array, size if name in free else None, rng) for name, array in example.items()}
        )
    return found


def _stretched(feeds: Arrays, free_axes: FreeAxes) -> Arrays:
    """The arrays with twice the size along their free axes."""
    found = dict(feeds)
    for name, axes in free_axes.items():
        for axis in axes:
            found[name] = np.concatenate([found[name], np.flip(found[name], axis)], axis)
    return found


def _like(array: np.ndarray, size: int | None, rng: np.random.Generator) -> np.ndarray:
    """Values between the example's least and greatest; where these coincide, noise or that one integer."""
    shape = array.shape if size is None else (size, *array.shape[1:])
    if array.dtype == bool:
        return rng.integers(0, 2, shape).astype(bool)
    if array.dtype.kind not in "fiu" and array.dtype != ml_dtypes.bfloat16:
        return np.resize(array, shape)
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if array.dtype.kind in "iu":
        return rng.integers(int(low), int(high) + 1, shape).astype(array.dtype)
    if not low < high or not np.isfinite([low, high]).all():
        return rng.standard_normal(shape).astype(array.dtype)
    return rng.uniform(low, high, shape).astype(array.dtype)
