"""Compare a converted graph with its original: outputs on the example, on variants of it and on hard inputs.

Reads the canonical ModelProto, a function that runs the original, and an example; returns a Verification with the
largest relative L2. Raises VerificationFailed, which names the output, the error, and of an ONNX original the first
node that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from converters.errors import (
    ConversionError,
    InvalidModel,
    NoFiniteOutput,
    UnsupportedModel,
    VerificationFailed,
)
from converters.graph.kernels import INEXACT_CELLS, exact
from converters.graph.runtime import ReferenceSession, RuntimeFailure, Session
from converters.model import Verification
from converters.types import NamedArrays
from converters.verification.hard_points import finite_distance, hard_points, spread
from converters.verification.norms import largest_difference
from converters.verification.original import Original, computed, first_difference, with_dropped_axes
from converters.verification.original_runs import OriginalRuns
from converters.verification.precisions import HALF_TOLERANCE, QUANTIZED_TOLERANCE, QUANTIZERS
from converters.verification.reference import Reference, relative_l2
from converters.verification.variants import FreeAxes

# Outputs at hard inputs may be differences of numbers of size one, which round at 6e-8.
_HARD_FLOOR = 1e-4
_HALVES = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)

__all__ = ["FreeAxes", "Reference", "free_inputs", "relative_l2", "verify"]


def verify(
    proto: onnx.ModelProto,
    reference: Reference,
    example: NamedArrays,
    *,
    batches: int,
    tolerance: float,
    seed: int,
    free_axes: FreeAxes | None = None,
) -> Verification:
    """Compare the graph with its original on the example, on `batches` variants of it, and on hard inputs.

    free_axes: {input: {axis: symbol}}, the axes that every other variant has twice as long.
    Variants on which the original fails are left out, with a note. Hard inputs (hard_points.py) are compared where
    the original gives finite values, as far as it determines them. Raises VerificationFailed where an output differs
    by more than `tolerance` (5 % where the graph quantizes or computes in half precision), in shape, or has no
    finite value to compare.
    """
    quantized = any(node.op_type in QUANTIZERS for node in proto.graph.node)
    # The runtime's optimizer would replace parts of a quantized graph by integer kernels.
    session = _session(proto, optimise=not quantized)
    points = OriginalRuns(reference, example, free_inputs(proto), batches, seed, free_axes or {})
    runner = _Runner(proto, reference, _allowed(proto, reference, tolerance), session, points)
    worst_absolute = worst_relative = 0.0
    lost: dict[str, NamedArrays] = {}
    compared = dict.fromkeys(runner.outputs, 0)
    for given, expected in points.runs():
        values, truths, found = runner.compared(given, expected)
        for name, value, truth in zip(runner.outputs, values, truths, strict=True):
            count, difference = largest_difference(value, truth)
            compared[name] += count + (truth.size == 0)
            if count < truth.size:
                lost.setdefault(name, given)
            worst_absolute = max(worst_absolute, difference)
        worst_relative = max(worst_relative, *found, 0.0)
    empty = [name for name, count in compared.items() if not count]
    if empty:
        raise NoFiniteOutput(
            f"output {empty[0]!r} has no finite value on any test input{_first_lost(proto, lost[empty[0]])}. "
            "Fix: give an `example` of the usual range"
        )
    for told, given in hard_points(example, seed) if reference.hard else ():
        runner.compare_hard(told, given)
    notes = [
        f"output {name!r} holds NaN or infinity{_first_lost(proto, given)}" for name, given in lost.items()
    ]
    return Verification(
        reference.label, points.compared, worst_absolute, worst_relative, (*points.notes(), *notes)
    )


def _first_lost(proto: onnx.ModelProto, feeds: NamedArrays) -> str:
    """Return the node that computes the first NaN or infinity, as a phrase; empty where none is found."""
    try:
        found = Original(proto, computed(proto)).run(feeds)
    except InvalidModel:
        return ""
    for node in proto.graph.node:
        for name in node.output:
            array = found.get(name)
            if array is not None and array.dtype.kind == "f" and not np.isfinite(array).all():
                return f": node {node.name!r} ({node.op_type}) is the first to compute one"
    return ""


def _allowed(proto: onnx.ModelProto, reference: Reference, tolerance: float) -> float:
    """Return the relative L2 that is allowed, by the precision in which either side computes."""
    if any(node.op_type in QUANTIZERS for node in proto.graph.node):
        tolerance = max(tolerance, QUANTIZED_TOLERANCE)
    typed = (*proto.graph.value_info, *proto.graph.output)
    half = any(info.type.tensor_type.elem_type in _HALVES for info in typed)
    return max(tolerance, HALF_TOLERANCE) if half or reference.half else tolerance


@dataclass
class _Runner:
    """The converted graph, run and compared with its original.

    Where they differ, the graph is run once more without the runtime's inexact kernels before it is refused.
    """

    proto: onnx.ModelProto
    reference: Reference
    tolerance: float
    session: Session | ReferenceSession
    points: OriginalRuns

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return self.session.outputs

    def compared(
        self, given: NamedArrays, expected: Sequence[np.ndarray]
    ) -> tuple[Sequence[np.ndarray], Sequence[np.ndarray], list[float]]:
        """Return the outputs, the original's in their shapes, and the relative errors.

        Raises VerificationFailed where an error is larger than the tolerance.
        """
        values = self._run(given)
        expected = self._shaped(values, expected)
        errors = self._errors(values, expected)
        if self._accepted(errors):
            return values, expected, errors
        if (again := self._without_inexact(given, expected)) is not None:
            exact_values, exact_truths = again[0], self._shaped(*again)
            with suppress(VerificationFailed):
                found = self._errors(exact_values, exact_truths)
                if self._accepted(found):
                    return exact_values, exact_truths, found
        index = next(index for index, error in enumerate(errors) if not error <= self.tolerance)
        self.points.refuse_random(given, index, self.tolerance)
        raise self._located(self._difference(self.outputs[index], errors[index], self.points.at), given)

    def _accepted(self, errors: Sequence[float]) -> bool:
        return all(error <= self.tolerance for error in errors)

    def _shaped(self, values: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [
            self.points.with_batch_axis(name, truth, value)
            for name, value, truth in zip(self.outputs, values, expected, strict=True)
        ]

    def _difference(self, name: str, relative: float, at: str) -> VerificationFailed:
        example = (
            " Or compare on the example alone with batches=0 (--batches 0)." if at != "the example" else ""
        )
        return VerificationFailed(
            f"output {name!r} differs from {self.reference.label} by {relative:.2g} (relative L2; allowed "
            f"{self.tolerance:.2g}) on {at}. Fix: if the model rounds that much, raise tolerance= (--tolerance)."
            f"{example}"
        )

    def compare_hard(self, told: str, given: NamedArrays) -> None:
        """Compare on inputs at which the original may fail, overflow, or be undetermined in its precision."""
        try:
            with np.errstate(all="ignore"):
                expected = self.reference.run(given)
        except Exception:  # nobody meant the original for these inputs
            return
        try:
            errors = self._hard_errors(self.session.run(given), expected)
            if not self._accepted(errors) and isinstance(self.session, Session):
                # The runtime's own optimisations decide what rounding leaves open.
                errors = self._hard_errors(Session(self.proto, optimise=False).run(given), expected)
        except RuntimeFailure:  # an error there, and not a wrong number
            return
        if self._accepted(errors):
            return
        if (again := self._without_inexact(given, expected)) is not None:
            errors = self._hard_errors(*again)
        moves = spread(self.reference.run, given, expected, _HARD_FLOOR)
        for name, error, moved in zip(self.outputs, errors, moves, strict=True):
            if not error <= max(self.tolerance, moved):
                raise self._located(
                    VerificationFailed(
                        f"output {name!r} differs from {self.reference.label} by {error:.2g} for {told} (relative "
                        f"L2; allowed {max(self.tolerance, moved):.2g}). Fix: report the model as a defect of "
                        "onnxplain, or raise tolerance= (--tolerance) if the model rounds that much"
                    ),
                    given,
                )

    def _run(self, given: NamedArrays) -> list[np.ndarray]:
        try:
            return self.session.run(given)
        except RuntimeFailure as failure:
            self.session, values = _without_kernel(self.proto, given, failure)
            return values

    def _errors(self, values: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> list[float]:
        return [
            _compare(name, value, truth, self.reference.label)
            for name, value, truth in zip(self.outputs, values, expected, strict=True)
        ]

    def _hard_errors(self, values: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> list[float]:
        return [
            finite_distance(value, truth, _HARD_FLOOR) if value.shape == truth.shape else float("inf")
            for value, truth in zip(values, self._shaped(values, expected), strict=True)
        ]

    def _without_inexact(
        self, given: NamedArrays, expected: Sequence[np.ndarray]
    ) -> tuple[list[np.ndarray], Sequence[np.ndarray]] | None:
        """The outputs, and those of an ONNX original, without the runtime's inexact kernels; None without any."""
        if self._exact is None:
            return None
        try:
            values = self._exact.run(given)
            return values, expected if self._exact_original is None else self._exact_original(given)
        except (RuntimeFailure, ConversionError):
            return None

    @cached_property
    def _exact_original(self) -> Callable[[NamedArrays], Sequence[np.ndarray]] | None:
        """The same for an ONNX original; None for any other, whose framework is exact."""
        if self.reference.proto is None:
            return None
        original = Original(exact(self.reference.proto))
        return lambda given: list(original.run(given).values())

    @cached_property
    def _exact(self) -> Session | ReferenceSession | None:
        """The graph without the runtime's inexact kernels; None where it has none of them."""
        try:
            if any(node.op_type in INEXACT_CELLS for node in self.proto.graph.node):
                return ReferenceSession(self.proto)
            precise = exact(self.proto)
            return None if precise is self.proto else Session(precise)
        except RuntimeFailure:
            return None

    def _located(self, failure: VerificationFailed, given: NamedArrays) -> VerificationFailed:
        """The failure with the first node that differs from an ONNX original."""
        if self.reference.proto is None:
            return failure
        first = first_difference(self.reference.proto, self.proto, given, self.tolerance)
        if first is None:
            return failure
        what, _, fix = str(failure).partition(". Fix: ")
        return VerificationFailed(f"{what}; {first}. Fix: {fix}")


def _without_kernel(
    proto: onnx.ModelProto, given: NamedArrays, failure: RuntimeFailure
) -> tuple[ReferenceSession, list[np.ndarray]]:
    """ONNX's reference evaluator, and its outputs, where the runtime lacks a kernel for a type only when it runs."""
    try:
        session = ReferenceSession(proto)
        return session, session.run(given)
    except RuntimeFailure:
        raise VerificationFailed(
            f"the converted graph does not run on inputs that the original takes ({failure}). Fix: give an example of "
            "the sizes that you explain, or report the model as a defect of onnxplain"
        ) from failure


def _session(proto: onnx.ModelProto, optimise: bool) -> Session | ReferenceSession:
    """ONNX Runtime; ONNX's reference evaluator for types that the runtime has no kernels for."""
    try:
        return Session(proto, optimise=optimise)
    except RuntimeFailure as failure:
        try:
            return ReferenceSession(proto)
        except RuntimeFailure:
            raise UnsupportedModel(
                f"the converted graph is not one that ONNX Runtime loads ({failure}). Fix: convert the model in "
                "float32, or report it as a defect of onnxplain"
            ) from failure


def _compare(name: str, value: np.ndarray, truth: np.ndarray, label: str) -> float:
    truth = with_dropped_axes(truth, value.shape)
    if value.shape != truth.shape:
        raise VerificationFailed(
            f"output {name!r} has shape {value.shape} on ONNX Runtime and {truth.shape} in {label}. Fix: give an "
            "example of the sizes that you explain, or report the model as a defect of onnxplain"
        )
    return relative_l2(value, truth)


def free_inputs(proto: onnx.ModelProto) -> frozenset[str]:
    """The inputs whose first axis is symbolic."""
    return frozenset(
        info.name
        for info in proto.graph.input
        if info.type.tensor_type.shape.dim and not info.type.tensor_type.shape.dim[0].HasField("dim_value")
    )
