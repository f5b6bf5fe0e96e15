"""What holds of every case: engines agree on values and gradients, and gradients are directional derivatives."""

from __future__ import annotations

import numpy as np

from tests.analyzer.ops.harness import (
    Case,
    forward,
    gradients,
    native_gradients,
    onnxruntime_forward,
    onnxruntime_gradients,
    residual_value,
)

_STEP = 1e-5


def directional_derivative(case: Case, index: int, direction: np.ndarray, g: np.ndarray) -> float:
    """⟨g, (f(x + h·v) − f(x − h·v)) / 2h⟩, by the form that the standard's node tests check."""
    name = f"x{index}"
    x = case.feeds[name]
    ahead = forward(case, {**case.feeds, name: x + _STEP * direction})
    behind = forward(case, {**case.feeds, name: x - _STEP * direction})
    return float(np.vdot(g, ahead - behind)) / (2 * _STEP)


def cotangent(case: Case) -> np.ndarray:
    """A random cotangent of the result; the same in every run."""
    return np.random.default_rng(7).normal(size=forward(case, case.feeds).shape)


def assert_close(found: list[np.ndarray], expected: list[np.ndarray], tolerance: float) -> None:
    """Equal shapes, and differences small against the largest entry."""
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        scale = max(float(np.max(np.abs(other), initial=0)), 1e-6)
        assert float(np.max(np.abs(one - other), initial=0)) <= tolerance * scale


def assert_directional(case: Case, found: list[np.ndarray], g: np.ndarray) -> None:
    """The gradients found are float64 and give the directional derivatives, along two directions each."""
    rng = np.random.default_rng(11)
    for index, gradient in zip(case.active, found, strict=True):
        x = case.inputs[index]
        assert x is not None
        assert gradient.shape == x.shape
        assert gradient.dtype == np.float64
        for _ in range(2):
            direction = rng.normal(size=x.shape)
            expected = directional_derivative(case, index, direction, g)
            scale = max(abs(expected), float(np.linalg.norm(gradient)), 1e-3)
            assert abs(float(np.vdot(gradient, direction)) - expected) <= 1e-6 * scale


def assert_residual(case: Case) -> None:
    """The residual by its rule is what the products J u of the active inputs leave of the output."""
    y = forward(case, case.feeds)
    products = [_jacobian_times_input(case, index) for index in case.active]
    scale = max(float(np.max(np.abs(part), initial=1e-3)) for part in (y, *products))
    expected = y - sum(products)
    np.testing.assert_allclose(residual_value(case), expected, rtol=0, atol=1e-7 * scale)


def _jacobian_times_input(case: Case, index: int) -> np.ndarray:
    """J u of one input: the change of the output where the input is scaled by 1 ± h."""
    name = f"x{index}"
    ahead = forward(case, {**case.feeds, name: case.feeds[name] * (1 + _STEP)})
    behind = forward(case, {**case.feeds, name: case.feeds[name] * (1 - _STEP)})
    return (ahead - behind) / (2 * _STEP)


def assert_everywhere(case: Case) -> None:
    """All of it: forward on three engines, the VJP in both precisions, both frameworks' autodiff, the residual."""
    assert_in_frameworks(case)
    assert_close([onnxruntime_forward(case)], [forward(case, case.feeds)], 1e-4)
    g = cotangent(case)
    assert_close(onnxruntime_gradients(case, g), gradients(case, g, "torch"), 1e-3)


def assert_in_frameworks(case: Case) -> None:
    """All of it but ONNX Runtime's part, of what the runtime itself does not run by the standard."""
    y = forward(case, case.feeds)
    assert_close([forward(case, case.feeds, "tensorflow")], [y], 1e-9)
    g = cotangent(case)
    found = gradients(case, g, "torch")
    assert_directional(case, found, g)
    assert_close(gradients(case, g, "tensorflow"), found, 1e-9)
    for framework in ("torch", "tensorflow"):
        assert_close(native_gradients(case, g, framework), found, 1e-9)
    assert_residual(case)
