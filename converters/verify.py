"""Compare a converted graph with its original: outputs on random batches and on hard inputs, by relative L2.

Reads the canonical ModelProto, a function that runs the original, and an example; returns a Verification.
Raises VerificationFailed, which names the output, the error, and of an ONNX original the first node that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

import ml_dtypes
import numpy as np
import onnx

from converters.errors import ConversionError, UnsupportedModel, VerificationFailed, one_line
from converters.hard_points import finite_distance, hard_points, spread
from converters.kernels import INEXACT_CELLS, exact
from converters.model import Verification
from converters.original import Original, first_difference
from converters.precisions import HALF_TOLERANCE, QUANTIZED_TOLERANCE, QUANTIZERS
from converters.runtime import ReferenceSession, RuntimeFailure, Session

# Norms below this per element count as rounding noise: an output of exact zeros may come out as 1e-9.
_FLOOR = 1e-6

Arrays = Mapping[str, np.ndarray]
FreeAxes = Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Reference:
    """The original, to be run: arrays by ONNX input name in, outputs in the order of the ONNX graph out.

    `label` names framework and version. `batch` is the one batch size it accepts, None where any will do.
    `proto` is the original itself where it is an ONNX model. `hard`: whether its values at extreme inputs can be
    trusted: ONNX's reference evaluator casts to integers otherwise than runtimes do.
    """

    run: Callable[[Arrays], Sequence[np.ndarray]]
    label: str
    batch: int | None = None
    proto: onnx.ModelProto | None = None
    hard: bool = True


class NoFiniteOutput(VerificationFailed):
    """An output has no finite value on any test input: nothing was compared."""


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
    """Compare the graph with its original on the example, on `batches` random batches like it, and on hard inputs.

    free_axes: {input: {axis: symbol}}, the axes that every other random batch has twice as long.
    Hard inputs (hard_points.py) are compared where the original gives finite values, as far as it determines them.
    Raises VerificationFailed where an output differs by more than `tolerance` (5 % where the graph quantizes
    or the output is in half precision), in shape, or has no finite value to compare.
    """
    quantized = any(node.op_type in QUANTIZERS for node in proto.graph.node)
    tolerance = max(tolerance, QUANTIZED_TOLERANCE) if quantized else tolerance
    # The runtime's optimizer would put integer kernels of its own in place of a quantized graph.
    runner = _Runner(proto, reference, tolerance, _session(proto, optimise=not quantized))
    worst_absolute = worst_relative = 0.0
    compared = dict.fromkeys(runner.outputs, 0)
    feeds = [example, *random_batches(example, free_inputs(proto), batches, reference.batch, seed)]
    feeds[2::2] = [_stretched(given, free_axes or {}) for given in feeds[2::2]]
    for given in feeds:
        expected = _run_original(reference, given)
        values, found = runner.compared(given, expected)
        for name, value, truth in zip(runner.outputs, values, expected, strict=True):
            finite = np.isfinite(truth.astype(np.float64))
            compared[name] += int(finite.sum()) + (truth.size == 0)
            difference = np.abs(value.astype(np.float64)[finite] - truth.astype(np.float64)[finite])
            worst_absolute = max(worst_absolute, float(difference.max(initial=0.0)))
        worst_relative = max(worst_relative, *found, 0.0)
    empty = [name for name, count in compared.items() if not count]
    if empty:
        raise NoFiniteOutput(
            f"output {empty[0]!r} has no finite value on any test input: give an `example` of the usual range"
        )
    for told, given in hard_points(example, seed) if reference.hard else ():
        runner.compare_hard(told, given)
    return Verification(reference.label, batches, worst_absolute, worst_relative)


@dataclass
class _Runner:
    """The converted graph, run and compared with its original.

    Where they differ, the graph is run once more without the runtime's inexact kernels before it is refused.
    """

    proto: onnx.ModelProto
    reference: Reference
    tolerance: float
    session: Session | ReferenceSession

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs."""
        return self.session.outputs

    def compared(self, given: Arrays, expected: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[float]]:
        """Return the outputs and their relative errors. Raises VerificationFailed where one is too large."""
        values = self._run(given)
        try:
            return values, self._errors(values, expected)
        except VerificationFailed as failure:
            if (again := self._without_inexact(given, expected)) is not None:
                values, expected = again
                with suppress(VerificationFailed):
                    return values, self._errors(values, expected)
            raise self._located(failure, given) from None

    def compare_hard(self, told: str, given: Arrays) -> None:
        """Compare on inputs at which the original may fail, overflow, or be undetermined in its precision."""
        try:
            with np.errstate(all="ignore"):
                expected = self.reference.run(given)
        except Exception:  # nobody meant the original for these inputs
            return
        values = self._run(given)
        errors = self._hard_errors(values, expected)
        allowed = [_allowed(truth, self.tolerance) for truth in expected]
        if all(error <= most for error, most in zip(errors, allowed, strict=True)):
            return
        if (again := self._without_inexact(given, expected)) is not None:
            errors = self._hard_errors(*again)
        moves = spread(self.reference.run, given, expected, _FLOOR)
        for name, error, most, moved in zip(self.outputs, errors, allowed, moves, strict=True):
            if not error <= max(most, moved):
                raise self._located(
                    VerificationFailed(
                        f"output {name!r} differs from {self.reference.label} by {error:.2g} for {told} "
                        f"(relative L2; allowed {max(most, moved):.2g})"
                    ),
                    given,
                )

    def _run(self, given: Arrays) -> list[np.ndarray]:
        try:
            return self.session.run(given)
        except RuntimeFailure as failure:
            self.session, values = _without_kernel(self.proto, given, failure)
            return values

    def _errors(self, values: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> list[float]:
        return [
            _compare(name, value, truth, self.tolerance, self.reference.label)
            for name, value, truth in zip(self.outputs, values, expected, strict=True)
        ]

    def _hard_errors(self, values: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> list[float]:
        return [
            finite_distance(value, truth, _FLOOR) if value.shape == truth.shape else float("inf")
            for value, truth in zip(values, expected, strict=True)
        ]

    def _without_inexact(
        self, given: Arrays, expected: Sequence[np.ndarray]
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
    def _exact_original(self) -> Callable[[Arrays], Sequence[np.ndarray]] | None:
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

    def _located(self, failure: VerificationFailed, given: Arrays) -> VerificationFailed:
        """The failure with the first node that differs from an ONNX original."""
        if self.reference.proto is None:
            return failure
        first = first_difference(self.reference.proto, self.proto, given, self.tolerance)
        return failure if first is None else VerificationFailed(f"{failure}; {first}")


def _allowed(truth: np.ndarray, tolerance: float) -> float:
    half = truth.dtype in (np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16))
    return max(tolerance, HALF_TOLERANCE) if half else tolerance


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
    allowed = _allowed(truth, tolerance)
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
