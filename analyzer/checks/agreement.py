"""Check that backends agree on one model: outputs, layers, gradients, biases, attributions, completeness.

Every available backend is read on the same inputs and compared with every other, tensor by tensor. What
exceeds the tolerance is either explained by kink decisions that are named (kinks.py), or a failure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import combinations

import numpy as np

from analyzer.backends import BACKENDS, Differentiable, ModelLike, differentiate
from analyzer.backends.base import Arrays, Inputs, attributed
from analyzer.biases import find_biases
from analyzer.checks.kinks import Side, explain
from analyzer.checks.metrics import distance
from analyzer.checks.report import Report, Row
from analyzer.errors import AnalysisError
from analyzer.methods import FullGrad, IntegratedGradients, full_grad, integrated_gradients
from analyzer.methods.integrated_gradients import quadrature
from analyzer.target import Target, as_target
from converters import Model, load

Progress = Callable[[str], None]

COMPLETENESS_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Reading:
    """What one backend says of the model on the feeds, at the tensors that it measures itself."""

    fn: Differentiable
    feeds: Arrays
    outputs: Arrays
    values: Arrays
    gradients: Arrays
    full_grad: FullGrad
    integrated: IntegratedGradients
    seconds: float


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
    target: object = None,
    *,
    backends: Sequence[str] | None = None,
    tolerance: float = 1e-4,
    steps: int = 8,
    progress: Progress | None = None,
) -> Report:
    """Compare every backend with every other on one model.

    inputs, target: as for `gradients`; None explains the class that the first backend ranks highest.
    backends: names; default all that are installed, the source included where the model has one.
    tolerance: of relative L2, for every quantity. steps: of Integrated Gradients. progress: called with what is
    being run. Raises AnalysisError for an unknown backend, InputError, TargetError, UnsupportedOp.
    """
    loaded = load(model)
    state = available_backends(loaded)
    chosen = (
        tuple(dict.fromkeys(backends)) if backends is not None else tuple(n for n in BACKENDS if not state[n])
    )
    unknown = [name for name in chosen if name not in BACKENDS]
    if unknown:
        raise AnalysisError(f"unknown backend {unknown[0]!r}; there are {', '.join(BACKENDS)}")
    if not chosen:
        raise AnalysisError("no backend to check")
    if not tolerance > 0:
        raise AnalysisError(f"the tolerance is a number above 0, not {tolerance}")
    functions = [differentiate(loaded, name) for name in chosen]
    fixed = _fix_target(functions[0], inputs, target)
    readings = []
    for fn in functions:
        if progress is not None:
            progress(fn.backend)
        readings.append(_read(fn, inputs, fixed, steps))
    rows: list[Row] = []
    for a, b in combinations(readings, 2):
        if progress is not None:
            progress(f"{a.fn.backend} against {b.fn.backend}")
        rows += _compare(_Pair(a, b, fixed, tolerance, steps))
    return Report(
        rows=rows,
        completeness=[_completeness_row(reading) for reading in readings],
        backends=chosen,
        skipped={name: reason for name, reason in state.items() if reason and name not in chosen},
        seconds={reading.fn.backend: reading.seconds for reading in readings},
    )


def _fix_target(fn: Differentiable, inputs: Inputs, target: object) -> Target:
    """One target for all: near-equal logits must not be ranked anew by every backend."""
    wanted = as_target(target)
    name = wanted.output or fn.graph.outputs[0]
    y = fn.forward(inputs, [name])[name] if name in fn.graph.tensors else np.zeros(1)
    return Target(name, weights=fn.seed(wanted, y.shape[0] if y.ndim else 1).cotangent(y))


def _read(fn: Differentiable, inputs: Inputs, target: Target, steps: int) -> Reading:
    began = time.perf_counter()
    feeds = fn.check_inputs(inputs)
    side = _side(fn, feeds, target)
    return Reading(
        fn=fn,
        feeds=feeds,
        outputs=fn.forward(feeds, [name for name in fn.graph.outputs if fn.graph.tensors[name].is_float]),
        values=side.values,
        gradients=side.gradients,
        full_grad=full_grad(fn, feeds, target),
        integrated=integrated_gradients(fn, feeds, target, steps=steps),
        seconds=time.perf_counter() - began,
    )


def _side(fn: Differentiable, feeds: Arrays, target: Target) -> Side:
    """The values at every layer, and the gradients at the inputs and wherever there is a bias."""
    output = target.output
    assert output is not None
    own = frozenset(fn.engine.known(feeds))
    path = attributed(fn.graph, output, fn.differentiable_inputs)
    layers = [name for name in fn.tensors if name in own and name in path]
    biased = {bias.tensor for bias in find_biases(fn.graph, output, fn.differentiable_inputs)}
    found = fn.gradients(feeds, target, [name for name in layers if name in biased or name in feeds])
    values = fn.forward(feeds, [name for name in layers if name not in feeds])
    return Side({**feeds, **values}, found.gradients)


@dataclass(frozen=True)
class _Pair:
    """Two readings to be compared."""

    a: Reading
    b: Reading
    target: Target
    tolerance: float
    steps: int

    def row(self, quantity: str, tensor: str, left: np.ndarray, right: np.ndarray) -> Row:
        """One comparison."""
        measured = distance(left, right)
        return {
            "quantity": quantity,
            "tensor": tensor,
            "a": self.a.fn.backend,
            "b": self.b.fn.backend,
            "max_abs": measured.max_abs,
            "relative_l2": measured.relative_l2,
            "cosine": measured.cosine,
            "tolerance": self.tolerance,
            "passed": measured.relative_l2 <= self.tolerance,
            "explanation": "",
        }

    def rows(self, quantity: str, left: Arrays, right: Arrays) -> list[Row]:
        """A comparison of each tensor that both sides have."""
        return [self.row(quantity, name, left[name], right[name]) for name in left if name in right]


def _compare(pair: _Pair) -> list[Row]:
    """The rows of one pair of backends, in the order output, layers, gradients, attributions."""
    a, b = pair.a, pair.b
    inputs = a.feeds.keys()
    rows = pair.rows("output", a.outputs, b.outputs)
    rows += pair.rows("layer", {n: v for n, v in a.values.items() if n not in inputs}, b.values)
    gradients = pair.rows(
        "input gradient", {n: g for n, g in a.gradients.items() if n in inputs}, b.gradients
    )
    gradients += pair.rows(
        "bias gradient", {n: g for n, g in a.gradients.items() if n not in inputs}, b.gradients
    )
    gradients += [pair.row("full grad", "map", a.full_grad.map, b.full_grad.map)]
    integrated = pair.rows("integrated gradients", a.integrated.attributions, b.integrated.attributions)
    if not all(row["passed"] for row in gradients):
        _excuse(
            gradients, _reason(pair, Side(a.values, a.gradients), Side(b.values, b.gradients), pair.target)
        )
    if not all(row["passed"] for row in integrated):
        _excuse(integrated, _reason_along_the_path(pair))
    return rows + gradients + integrated


def _reason(pair: _Pair, a: Side, b: Side, target: Target) -> str | None:
    """The kink decisions that explain why two sides' gradients differ, or None."""
    assert target.output is not None and target.weights is not None
    graph = pair.a.fn.graph
    wrt = [name for name in a.gradients if name in b.gradients]
    cotangent = target.weights.astype(graph.tensors[target.output].dtype)
    return explain(graph, target.output, a, b, cotangent, wrt, pair.tolerance)


def _excuse(rows: list[Row], reason: str | None) -> None:
    """Mark the rows in excess as explained, in place."""
    for row in rows:
        if reason is not None and not row["passed"]:
            row.update(passed=True, explanation=reason)


def _reason_along_the_path(pair: _Pair) -> str | None:
    """The kink decisions that explain a difference of Integrated Gradients, or None.

    Every point of the path at which the two sides' gradients differ must be explained by itself.
    """
    nodes, _ = quadrature(pair.a.integrated.rule, pair.steps)
    baselines = pair.a.integrated.baseline
    reasons = []
    for alpha in nodes:
        feeds = {
            name: array if name not in baselines else _between(baselines[name], array, alpha)
            for name, array in pair.a.feeds.items()
        }
        left, right = (reading.fn.gradients(feeds, pair.target).gradients for reading in (pair.a, pair.b))
        if all(distance(left[name], right[name]).relative_l2 <= pair.tolerance for name in left):
            continue
        a, b = (_side(reading.fn, feeds, pair.target) for reading in (pair.a, pair.b))
        reason = _reason(pair, a, b, pair.target)
        if reason is None:
            return None
        reasons.append(f"at α = {alpha:.2f}: {reason}")
    return (
        "; ".join(reasons[:2]) + (f"; and at {len(reasons) - 2} more points" if len(reasons) > 2 else "")
        or None
    )


def _between(start: np.ndarray, end: np.ndarray, alpha: float) -> np.ndarray:
    return (start + np.asarray(alpha, end.dtype) * (end - start)).astype(end.dtype)


def _completeness_row(reading: Reading) -> Row:
    """FullGrad must sum to the output on every backend. Integrated Gradients' δ depends on its steps: no verdict."""
    completeness = reading.full_grad.completeness
    return {
        "backend": reading.fn.backend,
        "method": "full grad",
        "error": float(completeness.error.max()),
        "tolerance": COMPLETENESS_TOLERANCE,
        "passed": bool(completeness.within(COMPLETENESS_TOLERANCE).all()),
    }
