"""Compare a converted graph with its original: outputs on the example and on variants of it, by relative L2.

Reads the canonical ModelProto, a function that runs the original, and an example; returns a Verification.
Raises VerificationFailed, which names the output and the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from converters.errors import ConversionError, UnsupportedModel, VerificationFailed, one_line
from converters.model import Verification
from converters.runtime import ReferenceSession, RuntimeFailure, Session
from converters.variants import Arrays, FreeAxes, variants

# Norms below this per element count as rounding noise: an output of exact zeros may come out as 1e-9.
_FLOOR = 1e-6
# Half precision rounds at 1e-3 (float16) and 8e-3 (bfloat16) per operation.
_HALF_TOLERANCE = 5e-2
# A code that is rounded the other way moves an output by a quantum: kernels differ in the last bit before it.
_QUANTIZED_TOLERANCE = 5e-2
_QUANTIZERS = ("QuantizeLinear", "DynamicQuantizeLinear")

_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True)
class Reference:
    """The original, to be run: arrays by ONNX input name in, outputs in the order of the ONNX graph out.

    `label` names framework and version. `batch` is the one batch size it accepts, None where any will do.
    """

    run: Callable[[Arrays], Sequence[np.ndarray]]
    label: str
    batch: int | None = None


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
    """Compare the graph with its original on the example and on `batches` variants of it.

    free_axes: {input: {axis: symbol}}, the axes that every other variant has twice as long.
    Variants on which the original fails are left out, with a note. Raises VerificationFailed where an output
    differs by more than `tolerance` (5 % where the graph quantizes or computes in half precision), in shape,
    or has no finite value to compare.
    """
    quantized = any(node.op_type in _QUANTIZERS for node in proto.graph.node)
    allowed = _allowed(proto, tolerance, quantized)
    # The runtime's optimizer would replace parts of a quantized graph by integer kernels.
    session = _session(proto, optimise=not quantized)
    worst_absolute = worst_relative = 0.0
    compared = dict.fromkeys(session.outputs, 0)
    points = _Points(reference, example, free_inputs(proto), batches, seed, free_axes or {})
    for given, expected in points.runs():
        try:
            values = session.run(given)
        except RuntimeFailure as failure:
            session, values = _without_kernel(proto, given, failure)
        for index, (name, value) in enumerate(zip(session.outputs, values, strict=True)):
            truth = points.with_batch_axis(name, expected[index], value)
            relative = _compare(name, value, truth, reference.label)
            if not relative <= allowed:
                points.refuse_random(given, index, allowed)
                raise VerificationFailed(_difference(name, relative, allowed, reference.label, points.at))
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
    return Verification(reference.label, points.compared, worst_absolute, worst_relative, points.notes())


def _allowed(proto: onnx.ModelProto, tolerance: float, quantized: bool) -> float:
    """Return the relative L2 that is allowed, by the precision in which the graph computes."""
    if quantized:
        tolerance = max(tolerance, _QUANTIZED_TOLERANCE)
    typed = (*proto.graph.value_info, *proto.graph.output)
    half = any(info.type.tensor_type.elem_type in _HALVES for info in typed)
    return max(tolerance, _HALF_TOLERANCE) if half else tolerance


class _Points:
    """The test inputs, the original's outputs on them, and what the user must know of both."""

    def __init__(
        self,
        reference: Reference,
        example: Arrays,
        free: frozenset[str],
        count: int,
        seed: int,
        free_axes: FreeAxes,
    ) -> None:
        self.reference, self.example, self.free = reference, example, free
        self.count, self.seed, self.free_axes = count, seed, free_axes
        self.compared = 0
        self.at = "the example"
        self._failures: list[Exception] = []
        self._only_sizes = 0
        self._dropped: dict[str, None] = {}

    def runs(self) -> Iterator[tuple[Arrays, Sequence[np.ndarray]]]:
        """Yield each test input with the original's outputs on it."""
        yield self.example, _run_original(self.reference, self.example)
        for index in range(self.count):
            found = self._variant(index)
            if found is not None:
                self.compared += 1
                self.at = f"test input {index + 1} of {self.count}, made from the example"
                yield found

    def _variant(self, index: int) -> tuple[Arrays, Sequence[np.ndarray]] | None:
        """Return the first attempt at a variant that the original takes."""
        attempts = variants(self.example, self.free, index, self.reference.batch, self.seed, self.free_axes)
        failure: Exception | None = None
        for number, given in enumerate(attempts):
            try:
                outputs = self.reference.run(given)
            except Exception as error:  # the original is the user's code
                failure = failure or error
                continue
            if failure is not None and number == len(attempts) - 1:
                self._only_sizes += 1
                self._failures.append(failure)
            return given, outputs
        assert failure is not None
        self._failures.append(failure)
        return None

    def with_batch_axis(self, name: str, truth: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Return the original's output; one that lost the axis of a single sample gets it back."""
        lost = value.ndim > truth.ndim and value.shape[0] == 1
        if not lost or [d for d in value.shape if d != 1] != [d for d in truth.shape if d != 1]:
            return truth
        self._dropped[name] = None
        return truth.reshape(value.shape)

    def refuse_random(self, given: Arrays, index: int, allowed: float) -> None:
        """Raise VerificationFailed where two runs of the original on the same input differ."""
        once, again = (_run_original(self.reference, given)[index] for _ in range(2))
        apart = relative_l2(again, once)
        if apart > allowed:
            raise VerificationFailed(
                f"the original is random: two runs on the same input differ by {apart:.2g} (relative L2). Fix: switch "
                "dropout and noise off in inference, as in F.dropout(x, p, training=self.training)"
            )

    def notes(self) -> tuple[str, ...]:
        """Return what the verification leaves open."""
        found = []
        if self._failures:
            why = f"{type(self._failures[0]).__name__}: {one_line(self._failures[0], 120)}"
            left_out = len(self._failures) - self._only_sizes
            if left_out:
                found.append(
                    f"the original fails on {left_out} of {self.count} test inputs made from the example ({why}); "
                    "the conversion is verified on the others"
                )
            if self._only_sizes:
                found.append(
                    f"the original fails on test inputs with other sizes or rows than the example ({why}); "
                    "the conversion is verified on the example's sizes alone"
                )
        if self._dropped:
            found.append(
                f"the original drops the batch axis of {', '.join(self._dropped)} for one sample; the graph keeps it"
            )
        return tuple(found)


def _difference(name: str, relative: float, allowed: float, label: str, at: str) -> str:
    """Return the message for an output that differs."""
    example = " Or compare on the example alone with batches=0 (--batches 0)." if at != "the example" else ""
    return (
        f"output {name!r} differs from {label} by {relative:.2g} (relative L2; allowed {allowed:.2g}) on {at}. "
        f"Fix: if the model rounds that much, raise tolerance= (--tolerance).{example}"
    )


def _run_original(reference: Reference, given: Arrays) -> Sequence[np.ndarray]:
    try:
        return reference.run(given)
    except ConversionError:
        raise
    except Exception as error:  # the original is the user's code
        shapes = ", ".join(f"{name} {array.shape}" for name, array in given.items())
        raise ConversionError(
            f"the original fails in {reference.label} on {shapes}: {one_line(error)}. "
            "Fix: give an example on which the original runs"
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


def _compare(name: str, value: np.ndarray, truth: np.ndarray, label: str) -> float:
    if value.shape != truth.shape:
        raise VerificationFailed(
            f"output {name!r} has shape {value.shape} on ONNX Runtime and {truth.shape} in {label}"
        )
    return relative_l2(value, truth)


def free_inputs(proto: onnx.ModelProto) -> frozenset[str]:
    """The inputs whose first axis is symbolic."""
    return frozenset(
        info.name
        for info in proto.graph.input
        if info.type.tensor_type.shape.dim and not info.type.tensor_type.shape.dim[0].HasField("dim_value")
    )
