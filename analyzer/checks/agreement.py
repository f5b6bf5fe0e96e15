"""Check that backends agree on one model: outputs, layers, gradients, biases, attributions, completeness.

Every available backend is read on the same inputs and compared with every other, tensor by tensor. What
exceeds the tolerance is either explained by kink decisions that are named (kinks.py), or a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import combinations

import ml_dtypes
import numpy as np
from onnx import helper

from analyzer.backends import BACKENDS, Differentiable, ModelLike, differentiate
from analyzer.backends.base import Arrays, Inputs
from analyzer.checks.kinks import Side, explain
from analyzer.checks.metrics import distance
from analyzer.checks.reading import Reader, Reading
from analyzer.checks.report import Report, Row
from analyzer.errors import AnalysisError
from analyzer.methods import FullGrad
from analyzer.methods.integrated_gradients import quadrature
from analyzer.precision import HALF
from analyzer.target import Target, TargetLike, as_target
from converters import Model, load
from converters.straight_through import straight_through as pass_rounding

Progress = Callable[[str], None]

COMPLETENESS_TOLERANCE = 1e-4
RULE = "gauss-legendre"


def available_backends(model: Model) -> dict[str, str]:
    """Every backend, with an empty string where it can run and else the reason why not."""
    return {
        "onnxruntime": "",
        "torch": "" if find_spec("torch") else 'not installed: pip install "onnxplain[torch]"',
        "tensorflow": "" if find_spec("tensorflow") else 'not installed: pip install "onnxplain[tensorflow]"',
        "source": "" if model.source is not None else "an ONNX file has no source",
    }


def check(
    model: ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Sequence[str] | None = None,
    backends: Sequence[str] | None = None,
    tolerance: float = 1e-4,
    steps: int = 8,
    straight_through: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Compare every backend with every other on one model.

    inputs, target: as for `gradients`; None explains the class that the first backend ranks highest.
    wrt: the tensors that are attributed, such as the embedded tokens of a text model; default the floating inputs.
        Integrated Gradients, whose path starts at the inputs, are then left out.
    backends: names; default all that are installed, the source included where the model has one.
    tolerance: of relative L2, for every quantity. steps: Gauss–Legendre points of Integrated Gradients, from a
        baseline of zeros. straight_through: as for `differentiate`; the source then has no part in it.
    progress: called with a phrase that says what is being run.
    Raises AnalysisError for an unknown backend, InputError, TargetError, UnsupportedOp.
    """
    loaded = pass_rounding(load(model)) if straight_through else load(model)
    state = available_backends(loaded)
    chosen = _chosen(backends, state)
    if not tolerance > 0:
        raise AnalysisError(f"the tolerance is a number above 0, not {tolerance}")
    functions = [differentiate(loaded, name) for name in chosen]
    feeds = functions[0].check_inputs(inputs)
    fixed = _fix_target(functions[0], feeds, target)
    readers = [Reader(fn, fixed, functions[0].roots(wrt)) for fn in functions]
    comparison = _Comparison(readers, feeds, fixed, tolerance, progress)
    readings = comparison.readings()
    rows = [row for pair in comparison.pairs for row in comparison.rows_of(pair, readings)]
    return Report(
        rows=rows + (comparison.integrated_rows(steps) if wrt is None else []),
        completeness=[
            _completeness_row(fn, reading) for fn, reading in zip(functions, readings, strict=True)
        ],
        backends=chosen,
        skipped={name: reason for name, reason in state.items() if reason and name not in chosen},
        seconds=dict(zip(chosen, comparison.seconds, strict=True)),
    )


def _chosen(backends: Sequence[str] | None, state: dict[str, str]) -> tuple[str, ...]:
    chosen = (
        tuple(dict.fromkeys(backends)) if backends is not None else tuple(n for n in BACKENDS if not state[n])
    )
    unknown = [name for name in chosen if name not in BACKENDS]
    if unknown:
        raise AnalysisError(f"unknown backend {unknown[0]!r}; there are {', '.join(BACKENDS)}")
    if not chosen:
        raise AnalysisError("no backend to check")
    return chosen


def _fix_target(fn: Differentiable, feeds: Arrays, target: TargetLike) -> Target:
    """One target for all: near-equal logits must not be ranked anew by every backend."""
    wanted = as_target(target)
    name = wanted.output or fn.graph.outputs[0]
    fn.check_target(name)
    y = fn.forward(feeds, [name])[name]
    weights = fn.seed(wanted, y.shape[0] if y.ndim else 1, feeds).cotangent(y)
    return Target(name, weights=weights)


Pair = tuple[int, int]


@dataclass
class _Comparison:
    """The backends of one check, and what is known of each."""

    readers: list[Reader]
    feeds: Arrays
    target: Target
    tolerance: float
    progress: Progress | None
    seconds: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = [0.0] * len(self.readers)

    @property
    def pairs(self) -> list[Pair]:
        """Every backend against every other."""
        return list(combinations(range(len(self.readers)), 2))

    def readings(self) -> list[Reading]:
        """One reading a backend."""
        found = []
        for index, reader in enumerate(self.readers):
            self._tell(reader.fn.backend)
            found.append(reader.read(self.feeds))
            self.seconds[index] += found[-1].seconds
        return found

    def rows_of(self, pair: Pair, readings: Sequence[Reading]) -> list[Row]:
        """The rows of one pair, in the order output, layers, gradients, FullGrad."""
        a, b = (readings[index] for index in pair)
        roots = self.readers[0].roots
        rows = self._rows(pair, "output", a.outputs, b.outputs)
        rows += self._rows(pair, "layer", _without(a.side.values, self.feeds), b.side.values)
        jumping = self._rows(pair, "input gradient", _only(a.side.gradients, roots), b.side.gradients)
        jumping += self._rows(pair, "bias gradient", _without(a.side.gradients, roots), b.side.gradients)
        jumping += self._rows(pair, "full grad", _maps(a.full_grad), _maps(b.full_grad))
        if not all(row["passed"] for row in jumping):
            self._tell(f"{self._name(pair[0])} against {self._name(pair[1])}")
            _excuse(jumping, self._reason(a.side, b.side))
        return rows + jumping

    def integrated_rows(self, steps: int) -> list[Row]:
        """Integrated Gradients of every backend, compared pair by pair.

        Every point of the path at which two gradients differ must be explained by itself.
        """
        totals = [dict.fromkeys(self._attributed, 0.0) for _ in self.readers]
        reasons: dict[Pair, list[str | None]] = {pair: [] for pair in self.pairs}
        for number, (alpha, weight) in enumerate(zip(*quadrature(RULE, steps), strict=True), 1):
            self._tell(f"integrated gradients, point {number} of {steps}")
            sides = self._sides_at(alpha)
            for total, side in zip(totals, sides, strict=True):
                for name in total:
                    total[name] = total[name] + weight * side.gradients[name].astype(np.float64)
            for pair in self.pairs:
                a, b = (sides[index] for index in pair)
                if any(self._apart(a.gradients[name], b.gradients[name]) for name in self._attributed):
                    reason = self._reason(a, b)
                    reasons[pair].append(reason and f"at α = {alpha:.2f}: {reason}")
        rows = []
        for pair in self.pairs:
            left, right = ({n: g * self.feeds[n] for n, g in totals[index].items()} for index in pair)
            found = self._rows(pair, "integrated gradients", left, right)
            _excuse(found, _summary(reasons[pair]))
            rows += found
        return rows

    @property
    def _attributed(self) -> tuple[str, ...]:
        return self.readers[0].roots

    def _sides_at(self, alpha: float) -> list[Side]:
        """Each backend at one point of the path from zeros to the inputs."""
        point = {
            name: (np.asarray(alpha, array.dtype) * array if name in self._attributed else array)
            for name, array in self.feeds.items()
        }
        sides = []
        for index, reader in enumerate(self.readers):
            began = time.perf_counter()
            sides.append(reader.at_point(point))
            self.seconds[index] += time.perf_counter() - began
        return sides

    def _reason(self, a: Side, b: Side) -> str | None:
        """The kink decisions that explain why two sides' gradients differ, or None."""
        graph = self.readers[0].fn.graph
        assert self.target.output is not None and self.target.weights is not None
        wrt = [name for name in a.gradients if name in b.gradients]
        cotangent = self.target.weights.astype(graph.tensors[self.target.output].dtype)
        return explain(graph, self.target.output, a, b, cotangent, wrt, self.tolerance)

    def _apart(self, left: np.ndarray, right: np.ndarray) -> bool:
        return distance(left, right).relative_l2 > self.tolerance

    def _rows(self, pair: Pair, quantity: str, left: Arrays, right: Arrays) -> list[Row]:
        """A comparison of each tensor that both sides have."""
        return [self._row(pair, quantity, name, left[name], right[name]) for name in left if name in right]

    def _row(self, pair: Pair, quantity: str, tensor: str, left: np.ndarray, right: np.ndarray) -> Row:
        measured = distance(left, right)
        return {
            "quantity": quantity,
            "tensor": tensor,
            "a": self._name(pair[0]),
            "b": self._name(pair[1]),
            "max_abs": measured.max_abs,
            "relative_l2": measured.relative_l2,
            "cosine": measured.cosine,
            "tolerance": self.tolerance,
            "passed": measured.relative_l2 <= self.tolerance,
            "explanation": "",
        }

    def _name(self, index: int) -> str:
        return self.readers[index].fn.backend

    def _tell(self, what: str) -> None:
        if self.progress is not None:
            self.progress(what)


def _maps(found: FullGrad) -> Arrays:
    """The maps by what rows call them: "map", or "map of" each of several inputs."""
    if not isinstance(found.map, Mapping):
        return {"map": found.map}
    return {f"map of {name}": drawn for name, drawn in found.map.items()}


def _excuse(rows: list[Row], reason: str | None) -> None:
    """Mark the rows in excess as explained, in place."""
    for row in rows:
        if reason is not None and not row["passed"]:
            row.update(passed=True, explanation=reason)


def _summary(reasons: Sequence[str | None]) -> str | None:
    """The reasons of several points as one; None where one of them has none, or there are none."""
    given = [reason for reason in reasons if reason is not None]
    if not given or len(given) < len(reasons):
        return None
    more = f"; and at {len(given) - 2} more points" if len(given) > 2 else ""
    return "; ".join(given[:2]) + more


def _only(arrays: Arrays, names: Iterable[str]) -> Arrays:
    kept = set(names)
    return {name: array for name, array in arrays.items() if name in kept}


def _without(arrays: Arrays, names: Iterable[str]) -> Arrays:
    left_out = set(names)
    return {name: array for name, array in arrays.items() if name not in left_out}


def _completeness_row(fn: Differentiable, reading: Reading) -> Row:
    """FullGrad must sum to the output on every backend. What IG leaves depends on its steps: no verdict."""
    completeness, allowed = reading.full_grad.completeness, _completeness_tolerance(fn)
    return {
        "backend": fn.backend,
        "method": "full grad",
        "error": float(completeness.error.max()),
        "tolerance": allowed,
        "passed": bool(completeness.within(allowed).all()),
    }


def _completeness_tolerance(fn: Differentiable) -> float:
    """The same for all, but for the source of a half-precision model: it is run in float32, and the constants that
    the exporter worked out in half, such as the root of attention's scale, are not its own.
    """
    kinds = [info.type.tensor_type.elem_type for info in fn.model.proto.graph.output]
    half = HALF.intersection(np.dtype(helper.tensor_dtype_to_np_dtype(kind)) for kind in kinds if kind)
    if fn.backend != "source" or not half:
        return COMPLETENESS_TOLERANCE
    return max(float(ml_dtypes.finfo(dtype).eps) for dtype in half)
