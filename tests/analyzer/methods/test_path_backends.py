"""Methods along paths give the same on every backend, on models of a fixed batch, and for inner tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import (
    Target,
    blur_integrated_gradients,
    differentiate,
    expected_gradients,
    guided_integrated_gradients,
    integrated_gradients,
    xrai,
)
from analyzer.errors import AnalysisError, TargetError
from converters import convert
from tests.zoo.pytorch_networks import NETWORKS

HALVES = np.zeros((2, 32, 32), bool)
HALVES[0, :16], HALVES[1, 16:] = True, True
METHODS: dict[str, Callable] = {
    "expected": lambda fn, x: expected_gradients(fn, x, 3, x[::-1] + 1, samples=6).attributions,
    "blur": lambda fn, x: blur_integrated_gradients(fn, x, 3, max_sigma=8, steps=6).attributions,
    "guided": lambda fn, x: guided_integrated_gradients(fn, x, 3, steps=6).attributions,
    "xrai": lambda fn, x: xrai(fn, x, 3, steps=4, segments=[HALVES] * len(x)).map,
}


@functools.cache
def network():
    # Without kinks, so that backends differ by rounding alone.
    net, shape = NETWORKS["efficientnet_b0"]()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(8))
    return convert(net.eval(), x), x.numpy()


@functools.cache
def on(backend: str, method: str) -> np.ndarray:
    model, x = network()
    return METHODS[method](differentiate(model, backend), x)


@pytest.mark.parametrize("backend", ["torch", "tensorflow", "source"])
@pytest.mark.parametrize("method", METHODS)
def test_every_backend_gives_the_same(method, backend):
    reference, found = on("onnxruntime", method), on(backend, method)
    assert np.linalg.norm(found - reference) <= 1e-4 * np.linalg.norm(reference)


FIXED = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[2,1,3,4] x) => (float[2,3] y)'
    " <int64[2] spatial = {1, 3}> { s = Sin(x) y = ReduceSum<keepdims = 0>(s, spatial) }"
)


@pytest.mark.parametrize("method", ["expected", "blur", "guided"])
def test_a_fixed_batch_takes_any_number_of_samples(method):
    free = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,1,3,4] x) => (float[n,3] y)'
        " <int64[2] spatial = {1, 3}> { s = Sin(x) y = ReduceSum<keepdims = 0>(s, spatial) }"
    )
    run: dict[str, Callable] = {
        "expected": lambda model, x: expected_gradients(model, x, 1, x + 1, samples=5),
        "blur": lambda model, x: blur_integrated_gradients(model, x, 1, max_sigma=1, steps=5),
        "guided": lambda model, x: guided_integrated_gradients(model, x, 1, steps=5),
    }
    x = np.random.default_rng(0).normal(size=(3, 1, 3, 4)).astype(np.float32)
    found, expected = run[method](FIXED, x), run[method](free, x)
    np.testing.assert_allclose(found.attributions, expected.attributions, atol=1e-6)
    np.testing.assert_allclose(found.delta, expected.delta, atol=1e-5)


def test_a_target_of_weights_is_held_along_the_path():
    model, x = network()
    weights = np.zeros(10, np.float32)
    weights[[1, 4]] = 1, -2
    both, one, four = (
        blur_integrated_gradients(model, x, target, max_sigma=8, steps=3)
        for target in (Target(weights=weights), 1, 4)
    )
    expected = one.attributions - 2 * four.attributions
    np.testing.assert_allclose(both.attributions, expected, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_allclose(
        both.completeness.output, one.completeness.output - 2 * four.completeness.output, atol=1e-4
    )


@pytest.mark.parametrize("method", ["expected", "blur", "guided"])
def test_a_gradient_that_is_not_finite_is_refused(method):
    # The square root has no derivative at 0, and none of any kind below.
    root = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,1,3,4] x) => (float[n,3] y)'
        " <int64[2] spatial = {1, 3}> { s = Sqrt(x) y = ReduceSum<keepdims = 0>(s, spatial) }"
    )
    x = np.ones((2, 1, 3, 4), np.float32)
    hollow = np.concatenate([x[:1], 0 * x[:1]])
    run: dict[str, Callable] = {
        "expected": lambda: expected_gradients(root, x, 1, -x, samples=4),
        "blur": lambda: blur_integrated_gradients(root, hollow, 1, steps=4),
        "guided": lambda: guided_integrated_gradients(root, x, 1, baseline=0.0, steps=4),
    }
    with pytest.raises(AnalysisError, match="not finite on the path of sample"):
        run[method]()


def test_results_draw_themselves():
    model, x = network()
    guided = guided_integrated_gradients(model, x, 3, steps=2)
    regions = xrai(model, x, 3, steps=2, segments=[HALVES] * len(x))
    for found in (guided, regions):
        assert len(found.plot(x).axes) >= len(x)
        assert found.plot() is not None
    table = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,4] a, float[n,2,9] b) => (float[n,4] y)'
        " <int64[2] rest = {1, 2}, int64[2] column = {-1, 1}>"
        " { r = ReduceSum<keepdims = 0>(b, rest) c = Reshape(r, column) y = Mul(a, c) }"
    )
    given = {"a": np.ones((2, 4), np.float32), "b": np.ones((2, 2, 9), np.float32)}
    data = {name: 2 * array for name, array in given.items()}
    both = expected_gradients(table, given, 1, data, samples=4)
    bars = both.plot(given, features=["w", "x", "y", "z"])
    assert [label.get_text() for label in bars.axes[0].get_yticklabels()] == ["w", "x", "y", "z"]
    assert len(both.plot(given, of="b").axes) >= 2


def test_inputs_that_hold_no_samples_are_explained_as_one():
    # Inputs of stated, different first sizes are samples of nothing.
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[5,3] x, float[3,2] w) => (float[5,2] y)'
        " { y = MatMul(x, w) }"
    )
    given = {"x": np.ones((5, 3), np.float32), "w": np.ones((3, 2), np.float32)}
    ones = Target(weights=np.ones((5, 2), np.float32))
    found = integrated_gradients(model, given, ones, steps=4)
    assert found.joint and "no axis of samples" in found.note
    # Σ x·w along α² from zeros: half of it belongs to each.
    np.testing.assert_allclose(found.attributions["x"], np.ones((5, 3)), rtol=1e-5)
    np.testing.assert_allclose(found.attributions["w"], np.full((3, 2), 2.5), rtol=1e-5)
    guided = guided_integrated_gradients(model, given, ones)
    np.testing.assert_allclose(guided.completeness.total, 30, rtol=1e-4)
    with pytest.raises(TargetError, match=r"no axis of samples.*Target\(index=\(row, class\)\)"):
        guided_integrated_gradients(model, given, 1)
