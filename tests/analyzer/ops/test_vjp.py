"""Every VJP rule against directional derivatives in float64, and against the frameworks' autodiff."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.ops import registered
from analyzer.ops.registry import Kind
from tests.analyzer.ops.cases import CASES
from tests.analyzer.ops.harness import (
    Case,
    forward,
    gradients,
    native_gradients,
    onnxruntime_gradients,
)

_STEP = 1e-5


def directional_derivative(case: Case, index: int, direction: np.ndarray, g: np.ndarray) -> float:
    """⟨g, (f(x + h·v) − f(x − h·v)) / 2h⟩, by the form that the official tests check."""
    name = f"x{index}"
    x = case.feeds[name]
    ahead = forward(case, {**case.feeds, name: x + _STEP * direction})
    behind = forward(case, {**case.feeds, name: x - _STEP * direction})
    return float(np.vdot(g, ahead - behind)) / (2 * _STEP)


def cotangent(case: Case) -> np.ndarray:
    """A random cotangent of the first output; the same in every run."""
    return np.random.default_rng(7).normal(size=forward(case, case.feeds).shape)


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    """Equal shapes, and differences small against the largest entry."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        scale = max(float(np.max(np.abs(other), initial=0)), 1e-6)
        assert float(np.max(np.abs(one - other), initial=0)) <= tolerance * scale


@pytest.mark.parametrize("case", CASES, ids=str)
def test_vjp_is_the_directional_derivative(case):
    g = cotangent(case)
    found = gradients(case, g, "torch")
    rng = np.random.default_rng(11)
    for index, gradient in zip(case.active, found, strict=True):
        x = case.inputs[index]
        assert gradient.shape == x.shape
        assert gradient.dtype == np.float64
        for _ in range(2):
            direction = rng.normal(size=x.shape)
            expected = directional_derivative(case, index, direction, g)
            scale = max(abs(expected), float(np.linalg.norm(gradient)), 1e-3)
            assert abs(float(np.vdot(gradient, direction)) - expected) <= 1e-6 * scale


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gradient_graph_agrees_on_tensorflow_and_onnxruntime(case):
    g = cotangent(case)
    expected = gradients(case, g, "torch")
    assert_close(gradients(case, g, "tensorflow"), expected, 1e-9)
    assert_close(onnxruntime_gradients(case, g), expected, 1e-3)


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_framework_differentiates_its_form_to_the_same(case, framework):
    g = cotangent(case)
    assert_close(native_gradients(case, g, framework), gradients(case, g, "torch"), 1e-9)


def test_every_rule_has_a_case():
    tried = {case.op for case in CASES}
    rules = {
        name for (domain, name), rule in registered().items() if rule.kind is not Kind.CONSTANT and not domain
    }
    assert rules <= tried, rules - tried
