"""Integrated Gradients of quadratic and piecewise linear functions, by every rule, to 1e-6 of their closed forms."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper, parser

from analyzer import differentiate, integrated_gradients
from analyzer.methods.paths.quadrature import RULES

RNG = np.random.default_rng(7)
FACTORS = RNG.normal(size=(4, 4))
A, B = FACTORS + FACTORS.T, RNG.normal(size=(4, 1))
X, START = RNG.normal(size=(3, 4)), RNG.normal(size=4)
STEPS = 5


def graph(body: str, **constants: np.ndarray) -> Any:
    proto = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 23]> g (float[n,4] x) => (float[n,1] y) {{ {body} }}'
    )
    arrays = {"last": np.array([1]), **{name: array.astype(np.float32) for name, array in constants.items()}}
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return proto


# y = ½ ⟨x, A x⟩ + ⟨b, x⟩, with gradient A x + b.
QUADRATIC = graph(
    "p = MatMul(x, a) q = Mul(x, p) s = ReduceSum<keepdims = 1>(q, last) h = Mul(s, half) l = MatMul(x, b)"
    " y = Add(h, l)",
    a=A, b=B, half=np.array(0.5),
)  # fmt: skip
# y = |x₀| + max(x₁, x₂) + leaky(x₃), with slope 0.1 below zero.
PIECEWISE = graph(
    "c0 = Gather<axis = 1>(x, i0) c1 = Gather<axis = 1>(x, i1) c2 = Gather<axis = 1>(x, i2)"
    " c3 = Gather<axis = 1>(x, i3) f = Abs(c0) g = Max(c1, c2) h = LeakyRelu<alpha = 0.1>(c3) y = Sum(f, g, h)"
)
PIECEWISE.graph.initializer.extend(numpy_helper.from_array(np.array([k]), f"i{k}") for k in range(4))

MODELS = {"quadratic": QUADRATIC, "piecewise": PIECEWISE}


@functools.cache
def on(name: str, backend: str) -> Any:
    precision = None if backend == "onnxruntime" else "float64"
    return differentiate(MODELS[name], backend, precision=precision)


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected))


def quadratics(alpha: float) -> np.ndarray:
    """(x − x′) times the gradient at one place of the path, at which a linear one has its mean."""
    a, b = (array.astype(np.float32).astype(np.float64) for array in (A, B))
    return (X - START) * ((START + alpha * (X - START)) @ a + b[:, 0])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_a_quadratic_by_every_rule(backend, rule):
    # The left ends of n intervals have their mean half an interval before the middle, the right ends behind it.
    mean = {"left": (STEPS - 1) / (2 * STEPS), "right": (STEPS + 1) / (2 * STEPS)}.get(rule, 0.5)
    found = integrated_gradients(on("quadratic", backend), X, baseline=START, steps=STEPS, rule=rule)
    assert close(found.attributions, quadratics(mean))


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_a_quadratic_to_a_tolerance(backend):
    found = integrated_gradients(on("quadratic", backend), X, baseline=START, tolerance=1e-7)
    assert close(found.attributions, quadratics(0.5))
    # Trapezoids are exact: the first points are enough.
    assert found.evaluations == 9


@pytest.mark.parametrize("settings", [*({"steps": STEPS, "rule": r} for r in RULES), {"tolerance": 1e-7}])
@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_a_piecewise_linear_function_within_one_piece(backend, settings):
    x, start = np.array([[-2.0, 1.5, 0.25, -0.5]]), np.array([[-0.5, 3.0, 1.0, -3.0]])
    found = integrated_gradients(on("piecewise", backend), x, baseline=start, **settings)
    assert close(found.attributions, (x - start) * [-1, 1, 0, 0.1])


KINKED = np.array([[3.0, 2.0, 0.5, 1.0]]), np.array([[-1.0, -1.0, 0.5, -1.0]])
# |x₀| turns at α = ¼, the maximum is x₂'s, which rests, until x₁ passes ½ at α = ½, as the leaky slope ends.
TURNED = np.array([[3.0 - 1.0, 2.0 - 0.5, 0.0, 1.0 + 0.1]])


@pytest.mark.parametrize("settings", [{"steps": 8, "rule": "midpoint"}, {"tolerance": 1e-7}])
@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_a_piecewise_linear_function_over_its_kinks(backend, settings):
    # Midpoints are exact where the kinks lie between intervals.
    x, start = KINKED
    found = integrated_gradients(on("piecewise", backend), x, baseline=start, **settings)
    np.testing.assert_allclose(found.attributions, TURNED, atol=1e-6)


def test_a_kink_anywhere_is_found():
    # |x₀| from −1 to 2 turns at α = ⅓, which no bisection meets.
    x, start = np.array([[2.0, 0.0, 0.0, 0.0]]), np.array([[-1.0, 0.0, 0.0, 0.0]])
    found = integrated_gradients(on("piecewise", "torch"), x, baseline=start, tolerance=1e-7)
    np.testing.assert_allclose(found.attributions[0, 0], 1, rtol=1e-6)
    np.testing.assert_allclose(found.delta, found.attributions[0, 0] - 1, atol=1e-12)
