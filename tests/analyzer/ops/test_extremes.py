"""Gradients and residuals at huge, infinite and masked inputs: finite, and equal to limits solved by hand.

Every backend's way to compute them is run: the rules in both precisions on the frameworks, in float32 on ONNX Runtime,
and the frameworks' own autodiff. `H` is a quarter of the largest number of the precision, `LOW` the lowest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import e, exp, log, pi
from typing import Any

import numpy as np
import pytest

from analyzer.autodiff.biases import residuals
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph
from analyzer.graph.program import assemble
from tests.analyzer.ops.harness import (
    Case,
    as_dtype,
    gradient_model,
    onnxruntime_session,
    run,
    run_native,
)

INF = np.inf
SELU = (1.67326319217681884765625, 1.05070102214813232421875)


@dataclass(frozen=True)
class Extreme:
    """An op at inputs made of H and LOW; its gradients for a cotangent of ones, and its residual."""

    op: str
    make: Callable[[float, float], tuple[Any, ...]]
    """(H, LOW) -> inputs, gradients of the active inputs, residual."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    active: tuple[int, ...] = (0,)
    native: bool = True
    """Whether the frameworks' own autodiff of their form gives the limit, too."""

    def __str__(self) -> str:
        return "-".join([self.op, *(f"{k}={v}" for k, v in self.attributes.items())])


def unary(op: str, *points: tuple[Callable[[float], float], float, Any], **attributes: Any) -> Extreme:
    """One input, elementwise: (x of H, slope, residual), where the residual may be a function of H."""

    def make(h: float, low: float) -> tuple[Any, ...]:
        x = [point(h) for point, _, _ in points]
        r = [value(h) if callable(value) else value for _, _, value in points]
        return [x], [[slope for _, slope, _ in points]], r

    return Extreme(op, make, attributes)


def down(h: float) -> float:
    return -h


def up(h: float) -> float:
    return h


def at(x: float) -> Callable[[float], float]:
    return lambda h: x


SATURATING = [
    unary("Sigmoid", (down, 0, 0), (up, 0, 1), (at(-INF), 0, 0), (at(INF), 0, 1)),
    unary("Tanh", (down, 0, -1), (up, 0, 1), (at(-INF), 0, -1), (at(INF), 0, 1)),
    unary("Erf", (down, 0, -1), (up, 0, 1), (at(-INF), 0, -1), (at(INF), 0, 1)),
    unary("Atan", (down, 0, -pi / 2), (up, 0, pi / 2), (at(INF), 0, pi / 2)),
    unary("Softsign", (down, 0, -1), (up, 0, 1), (at(-9.0), 0.01, -0.81)),
    unary("Softplus", (down, 0, 0), (up, 1, 0), (at(-INF), 0, 0), (at(-20.0), exp(-20), 21 * exp(-20))),
    unary("Elu", (down, 0, -1), (up, 1, 0), (at(-INF), 0, -1), (at(-20.0), exp(-20), 21 * exp(-20) - 1)),
    unary(
        "Selu",
        (down, 0, -SELU[0] * SELU[1]),
        (lambda h: h / 2, SELU[1], 0),
        (at(-1e9), 0, -SELU[0] * SELU[1]),
    ),
    unary("Celu", (down, 0, -1.5), (up, 1, 0), (at(-INF), 0, -1.5), (at(-1e9), 0, -1.5), alpha=1.5),
    unary("HardSigmoid", (down, 0, 0), (up, 0, 1), (at(-INF), 0, 0), (at(INF), 0, 1)),
    unary("HardSwish", (down, 0, 0), (up, 1, 0)),
    unary("Mish", (down, 0, 0), (up, 1, 0)),
    unary("Gelu", (down, 0, 0), (up, 1, 0), (at(-1e9), 0, 0), (at(1e9), 1, 0)),
    unary("Gelu", (down, 0, 0), (up, 1, 0), (at(-1e9), 0, 0), (at(1e9), 1, 0), approximate="tanh"),
    unary("Relu", (down, 0, 0), (up, 1, 0), (at(-INF), 0, 0)),
    unary("LeakyRelu", (down, 0.25, 0), (up, 1, 0), alpha=0.25),
    unary("ThresholdedRelu", (down, 0, 0), (up, 1, 0), (at(-INF), 0, 0)),
    unary("Shrink", (down, 1, 0), (up, 1, 0)),
    unary("Exp", (down, 0, 0), (at(-INF), 0, 0), (at(1.0), e, 0)),
]
GROWING = [
    unary("Log", (up, 0, lambda h: log(h) - 1), (at(1.0), 1, -1)),
    unary("Asinh", (up, 0, lambda h: log(h) + log(2) - 1), (down, 0, lambda h: 1 - log(h) - log(2))),
    unary("Acosh", (up, 0, lambda h: log(h) + log(2) - 1)),
    unary("Sqrt", (up, 0, lambda h: 0.5 * h**0.5), (at(4.0), 0.25, 1)),
    unary("Abs", (down, -1, 0), (up, 1, 0)),
    unary("Reciprocal", (up, 0, 0), (at(INF), 0, 0), (at(0.5), -4, 4)),
]
THIRD = [1 / 3] * 3
MASKED = [
    # A row masked whole, one in part, one by -inf, and one whose scores lie at both ends of the range.
    Extreme(
        "Softmax",
        lambda h, low: (
            [[[low] * 3, [0, 0, low], [-INF, 5, 5], [h, -h, -h]]],
            [[[0] * 3] * 4],
            [THIRD, [0.5, 0.5, 0], [0, 0.5, 0.5], [1, 0, 0]],
        ),
    ),
    Extreme(
        "LogSoftmax",
        lambda h, low: (
            [[[low] * 3, [h / 4] * 3, [7, 7, -h]]],
            [[[0] * 3, [0] * 3, [-0.5, -0.5, 1]]],
            [[-log(3)] * 3, [-log(3)] * 3, [-log(2)] * 3],
        ),
    ),
    Extreme(
        "ReduceLogSumExp",
        lambda h, low: (
            [[[low] * 3, [h / 4] * 3, [7, 7, -INF], [1e6, 1e6, 0]], [1]],
            [[THIRD, THIRD, [0.5, 0.5, 0], [0.5, 0.5, 0]]],
            [log(3), log(3), log(2), log(2)],
        ),
        {"keepdims": 0},
    ),
    Extreme(
        "ReduceLogSumExp",
        lambda h, low: ([[[[low, low]], [[3, 3]]], [0, 2]], [[[[0, 0]], [[0.5, 0.5]]]], [log(2)]),
        {"keepdims": 0},
    ),
    Extreme("ReduceMax", lambda h, low: ([[[low] * 2, [-INF, h]], [1]], [[[0.5, 0.5], [0, 1]]], [[0], [0]])),
    Extreme("Max", lambda h, low: ([[-INF, low, 2, h], [1, 1, 1, 1]], [[0, 0, 1, 1]], [1, 1, 0, 0])),
    Extreme("Min", lambda h, low: ([[INF, h, 0.5, low], [1, 1, 1, 1]], [[0, 0, 1, 1]], [1, 1, 0, 0])),
    Extreme(
        "Max", lambda h, low: ([[-INF, 3], [low, 2]], [[0, 1], [1, 0]], [0, 0]), active=(0, 1), native=False
    ),
    Extreme("Clip", lambda h, low: ([[-INF, -h, 0.5, h, INF], -1, 1], [[0, 0, 1, 0, 0]], [-1, -1, 0, 1, 1])),
    Extreme(
        "Clip", lambda h, low: ([[-INF, h, 2], -1, 3], [[0, 0, 1], 1, 1], [0, 0, 0]), active=(0, 1, 2)
    ),
    Extreme("Where", lambda h, low: ([[True, False], [-INF, -INF], [1, 2]], [[0, 1]], [0, 0]), active=(2,)),
    Extreme("Where", lambda h, low: ([[True, False], [low, low], [1, 2]], [[0, 1]], [low, 0]), active=(2,)),
    Extreme("Add", lambda h, low: ([[1, 2], [-INF, low]], [[1, 1]], [0, low])),
    Extreme("Pow", lambda h, low: ([[0, 2, 0.5 * h**0.5], 2], [[0, 4, h**0.5]], lambda h: [0, -4, -h / 4])),
    Extreme("Pow", lambda h, low: ([[h, 4], 0.5], [[0, 0.25]], [0.5 * h**0.5, 1])),
    Extreme("Pow", lambda h, low: ([[4, 1], [0.5, 3]], [[0.25, 3], [2 * log(4), 0]], [1 - log(4), -2]), active=(0, 1)),
    Extreme("Div", lambda h, low: ([[1, 0], [INF, h]], [[0, 0], [0, 0]], [0, 0]), active=(0, 1), native=False),
    Extreme("ReduceL2", lambda h, low: ([[[0, 0], [3, 4]], [1]], [[[0, 0], [0.6, 0.8]]], [[0], [0]])),
    Extreme("ReduceL1", lambda h, low: ([[[0, 0], [3, -4]], [1]], [[[0, 0], [1, -1]]], [[0], [0]])),
    Extreme(
        "LayerNormalization",
        lambda h, low: ([[[3, 3], [1e6, 1e6]], [1, 1], [2, 5]], [[[0, 0], [0, 0]]], [[2, 5], [2, 5]]),
        {"epsilon": 1e-5},
    ),
    Extreme("MaxPool", lambda h, low: ([[[[-INF, -INF, 1, h]]]], [[[[0, 0, 0, 1]]]], [[[0]]]), {"kernel_shape": [4]}),
]  # fmt: skip
CASES = [*SATURATING, *GROWING, *MASKED]
ENGINES = [
    ("onnxruntime", np.float32),
    ("torch", np.float32),
    ("torch", np.float64),
    ("tensorflow", np.float32),
    ("tensorflow", np.float64),
]


def solved(extreme: Extreme, dtype: Any) -> tuple[Case, list[np.ndarray], np.ndarray]:
    """The op at numbers of a precision, its gradients and its residual."""
    limits = np.finfo(dtype)
    h = float(limits.max) / 4
    given, gradients, r = extreme.make(h, float(limits.min))
    r = r(h) if callable(r) else r
    inputs = [np.asarray(value) for value in given]
    # Axes are the integers in a list that is not active; all other numbers are data.
    axes = extreme.op.startswith("Reduce")
    inputs = [
        x if x.dtype == bool else x.astype(np.int64 if axes and i == 1 else np.float64)
        for i, x in enumerate(inputs)
    ]
    case = Case(extreme.op, tuple(inputs), extreme.attributes, extreme.active)
    return case, [np.asarray(one, np.float64) for one in gradients], np.asarray(r, np.float64)


def computed(proto: Any, feeds: Mapping[str, np.ndarray], dtype: Any, engine: str) -> list[np.ndarray]:
    """The outputs of a model of plain ops on an engine."""
    graph = Graph.from_proto(proto)
    given = {name: as_dtype(array, dtype) for name, array in feeds.items() if name in graph.inputs}
    if engine == "onnxruntime":
        return onnxruntime_session(proto).run(None, given)
    return run(graph, given, graph.outputs, engine)


def residual(case: Case, dtype: Any, engine: str) -> np.ndarray:
    """The residual by its rule; 0 where the rule states none."""
    graph = Graph.from_proto(case.proto(dtype))
    op = Builder(graph.opset, prefix="bias/")
    active = [i in case.active for i in range(len(case.inputs))]
    r = residuals(graph, op, graph.nodes[0], active)[0]
    if r is None:
        return np.zeros(())
    return computed(assemble(graph, op, {"r": r}).proto, case.feeds, dtype, engine)[0]


def assert_near(found: np.ndarray, expected: np.ndarray, dtype: Any) -> None:
    tolerance = 2e-6 if dtype == np.float32 else 1e-12
    # Far out on an axis a slope of 1/H is 0 to any reader.
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("engine", "dtype"), ENGINES, ids=lambda value: getattr(value, "__name__", value))
@pytest.mark.parametrize("extreme", CASES, ids=str)
def test_rules_meet_the_limits_of_gradient_and_residual(extreme, engine, dtype):
    case, gradients, r = solved(extreme, dtype)
    with np.errstate(all="ignore"):
        y = computed(case.proto(dtype), case.feeds, dtype, engine)[0]
        found = computed(gradient_model(case, dtype), {**case.feeds, "g": np.ones(y.shape)}, dtype, engine)
        bias = residual(case, dtype, engine)
    for one, expected in zip(found, gradients, strict=True):
        assert_near(one, expected, dtype)
    assert_near(np.broadcast_to(bias, y.shape), r, dtype)


@pytest.mark.parametrize("engine", ["torch", "tensorflow"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda dtype: dtype.__name__)
@pytest.mark.parametrize("extreme", [case for case in CASES if case.native], ids=str)
def test_the_frameworks_own_autodiff_meets_the_limits(extreme, dtype, engine):
    case, gradients, _ = solved(extreme, dtype)
    for one, expected in zip(run_native(case, dtype, engine), gradients, strict=True):
        assert_near(one, expected, dtype)
