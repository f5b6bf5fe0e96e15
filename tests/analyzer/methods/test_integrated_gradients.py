"""Integrated Gradients against closed forms, against Captum, and against its own completeness."""

from __future__ import annotations

import functools

import captum.attr
import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import Target, differentiate, integrated_gradients
from analyzer.errors import AnalysisError, InputError, ShapeError
from analyzer.methods.paths.quadrature import quadrature
from converters import Preprocessing, convert
from tests.zoo.pytorch_networks import NETWORKS

SQUARE = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,3] x) => (float[n,1] y)'
    " <int64[1] last = {1}> { s = Mul(x, x) y = ReduceSum<keepdims = 1>(s, last) }"
)
PRODUCT = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,1] a, float[n,1] b) => (float[n,1] y) { y = Mul(a, b) }'
)


@functools.cache
def network(name: str):
    net, shape = NETWORKS[name]()
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(6))
    preprocessing = Preprocessing(size=shape[1:], mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))
    return net.eval(), x.numpy(), convert(net, x, preprocessing=preprocessing)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
@pytest.mark.parametrize("ours, theirs", [("gauss-legendre", "gausslegendre")])
def test_equals_captum_at_equal_steps(name, ours, theirs):
    net, x, model = network(name)
    baseline = np.full_like(x, 0.25)
    ig = integrated_gradients(model, x, target=1, baseline=0.25, steps=50, rule=ours)
    expected = captum.attr.IntegratedGradients(net).attribute(
        torch.tensor(x), torch.tensor(baseline), target=1, n_steps=50, method=theirs, internal_batch_size=50
    )
    expected = expected.numpy()
    assert np.linalg.norm(ig.attributions - expected) <= 1e-4 * np.linalg.norm(expected)


@pytest.mark.parametrize("rule", ["gauss-legendre", "trapezoid"])
@pytest.mark.parametrize("steps", [2, 3, 16, 50])
def test_weights_sum_to_one_and_lie_in_the_unit_interval(rule, steps):
    nodes, weights = quadrature(rule, steps)
    assert len(nodes) == len(weights) == steps
    assert abs(weights.sum() - 1) < 1e-12
    assert (weights > 0).all()
    assert nodes.min() >= 0
    assert nodes.max() <= 1


def test_gauss_legendre_is_exact_to_its_degree_and_trapezoid_converges_quadratically():
    nodes, weights = quadrature("gauss-legendre", 4)
    for degree in range(8):
        assert abs(weights @ nodes**degree - 1 / (degree + 1)) < 1e-12
    assert abs(weights @ nodes**8 - 1 / 9) > 1e-7
    errors = []
    for steps in (9, 17, 33):
        nodes, weights = quadrature("trapezoid", steps)
        errors.append(abs(weights @ np.exp(nodes) - (np.e - 1)))
    ratios = np.array(errors[:-1]) / errors[1:]
    np.testing.assert_allclose(ratios, 4, rtol=0.02)


@pytest.mark.parametrize("rule", ["gauss-legendre", "trapezoid"])
@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_quadratic_has_its_closed_form(rule, backend):
    # f = Σ x², so the attribution of x_i is x_i² − x′_i²: the gradient is linear along the path.
    x = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]], np.float32)
    start = np.array([0.5, 1.0, -1.0], np.float32)
    ig = integrated_gradients(differentiate(SQUARE, backend), x, baseline=start, steps=2, rule=rule)
    np.testing.assert_allclose(ig.attributions, x**2 - start**2, atol=1e-5)
    np.testing.assert_allclose(ig.delta, 0, atol=1e-5)


def test_product_of_two_inputs_is_shared_equally():
    a, b = np.array([[3.0], [2.0]], np.float32), np.array([[5.0], [-1.0]], np.float32)
    ig = integrated_gradients(PRODUCT, {"a": a, "b": b}, steps=3)
    np.testing.assert_allclose(ig.attributions["a"], a * b / 2, rtol=1e-5)
    np.testing.assert_allclose(ig.attributions["b"], a * b / 2, rtol=1e-5)


def test_kinked_function_has_its_closed_form():
    # f = relu(x₁ + x₂ − 1) from 0: the gradient is 1 on the last 1 − 1/s of the path, s = x₁ + x₂.
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,2] x) => (float[n,1] y)'
        " <float[2,1] w = {1, 1}, float[1] b = {-1}> { h = Gemm(x, w, b) y = Relu(h) }"
    )
    x = np.array([[1.0, 3.0]], np.float32)
    ig = integrated_gradients(proto, x, steps=2048, rule="trapezoid", batch_size=512)
    np.testing.assert_allclose(ig.attributions, x * (1 - 1 / 4), rtol=1e-3)


def test_delta_is_the_shortfall_from_the_difference_of_outputs():
    _, x, model = network("resnet18")
    fn = differentiate(model)
    ig = integrated_gradients(fn, x, target=3, baseline=0.1, steps=5)
    difference = fn.gradients(x, 3).output - fn.gradients(np.full_like(x, 0.1), 3).output
    total = ig.attributions.reshape(3, -1).sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(ig.delta, total - difference, atol=1e-5)
    np.testing.assert_allclose(ig.completeness.output, difference, atol=1e-5)
    assert ig.evaluations == 5


def test_more_steps_leave_less():
    _, x, model = network("efficientnet_b0")
    coarse = integrated_gradients(model, x, target=0, steps=2)
    fine = integrated_gradients(model, x, target=0, steps=64)
    assert np.abs(fine.delta).sum() < 0.1 * np.abs(coarse.delta).sum()


def test_tolerance_is_met_or_said_not_to_be():
    _, x, model = network("resnet18")
    ig = integrated_gradients(model, x, target=0, steps=4, tolerance=0.01, max_evaluations=600)
    within = np.abs(ig.delta) <= 0.01 * np.abs(ig.completeness.output)
    np.testing.assert_array_equal(ig.converged, within)
    assert ig.evaluations <= 600
    short = integrated_gradients(model, x, target=0, steps=2, tolerance=1e-9, max_evaluations=6)
    assert short.evaluations <= 6
    assert not short.converged.all()


def test_without_a_target_the_class_at_the_input_is_kept_along_the_path():
    net, x, model = network("resnet18")
    ig = integrated_gradients(model, x, steps=8)
    with torch.no_grad():
        top = net(torch.tensor(x)).argmax(1).numpy()
    np.testing.assert_array_equal(ig.target, top)
    same = integrated_gradients(model, x, top, steps=8)
    np.testing.assert_allclose(ig.attributions, same.attributions, atol=1e-6)


def test_weights_over_the_output_are_linear():
    _, x, model = network("resnet18")
    weights = np.zeros(10, np.float32)
    weights[[1, 4]] = 1, -2
    both = integrated_gradients(model, x, Target(weights=weights), steps=4).attributions
    one, four = (integrated_gradients(model, x, k, steps=4).attributions for k in (1, 4))
    np.testing.assert_allclose(both, one - 2 * four, atol=1e-4 * np.abs(both).max())


def test_results_do_not_depend_on_the_batch_size():
    _, x, model = network("resnet18")
    a = integrated_gradients(model, x, 0, steps=7, batch_size=1).attributions
    b = integrated_gradients(model, x, 0, steps=7, batch_size=64).attributions
    assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a)


def test_black_and_white_are_pixels_through_the_preprocessing():
    _, x, model = network("resnet18")
    mean, std = (np.array(v).reshape(3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.5)))
    black = integrated_gradients(model, x, 0, baseline="black", steps=1).baseline
    white = integrated_gradients(model, x, 0, baseline="white", steps=1).baseline
    np.testing.assert_allclose(black, np.broadcast_to(-mean / std, x.shape), rtol=1e-5)
    np.testing.assert_allclose(white, np.broadcast_to((1 - mean) / std, x.shape), rtol=1e-5)


def test_random_baseline_is_seeded_and_lies_between_black_and_white():
    _, x, model = network("resnet18")
    one, same, other = (
        integrated_gradients(model, x, 0, baseline="random", steps=1, rng=seed).baseline for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    mean, std = (np.array(v).reshape(3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.25, 0.5)))
    pixels = one * std + mean
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    assert abs(pixels.mean() - 0.5) < 0.02


def test_blurred_baseline_keeps_constants_and_the_mean_and_loses_detail():
    _, x, model = network("resnet18")
    flat = np.full_like(x, 1.5)
    np.testing.assert_allclose(
        integrated_gradients(model, flat, 0, baseline="blurred", steps=1).baseline, flat, rtol=1e-5
    )
    blurred = integrated_gradients(model, x, 0, baseline="blurred", steps=1).baseline
    assert blurred.shape == x.shape
    assert blurred.std() < 0.3 * x.std()
    # Channels are not mixed: a channel of zeros stays zero.
    x = x.copy()
    x[:, 1] = 0
    assert not integrated_gradients(model, x, 0, baseline="blurred", steps=1).baseline[:, 1].any()


def test_float64_stays_float64():
    _, x, model = network("resnet18")
    fn = differentiate(model, "torch", precision="float64")
    ig = integrated_gradients(fn, x[:1].astype(np.float64), 0, steps=4)
    assert ig.attributions.dtype == np.float64
    assert integrated_gradients(model, x[:1], 0, steps=1).attributions.dtype == np.float32


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rule": "simpsons"}, AnalysisError, "unknown rule 'simpsons'"),
        ({"steps": 0}, AnalysisError, "at least 1 step"),
        ({"steps": 1, "rule": "trapezoid"}, AnalysisError, "at least 2 steps"),
        ({"baseline": "grey"}, AnalysisError, "unknown baseline 'grey'"),
        ({"baseline": np.zeros((3, 4, 4))}, ShapeError, "does not broadcast"),
        ({"baseline": np.nan}, InputError, "NaN"),
        ({"baseline": {"nothing": 0.0}}, AnalysisError, "'nothing'"),
        ({"tolerance": 0.0}, AnalysisError, "above 0"),
        ({"batch_size": 0}, AnalysisError, "at least 1"),
    ],
)
def test_what_is_refused(options, error, message):
    _, x, model = network("resnet18")
    with pytest.raises(error, match=message):
        integrated_gradients(model, x, 0, **options)
