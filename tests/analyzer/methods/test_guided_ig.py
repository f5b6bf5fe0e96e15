"""Guided Integrated Gradients against hand-solved paths, the authors' code, and its own completeness."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import differentiate, guided_integrated_gradients, integrated_gradients
from analyzer.errors import AnalysisError, ShapeError
from analyzer.methods.paths.baselines import Dataset
from converters import convert
from tests.peers import saliency
from tests.zoo.pytorch_networks import NETWORKS

HEADER = '<ir_version: 10, opset_import: ["": 23]> g '
# f = x₁·x₂, with ∇f = (x₂, x₁).
PRODUCT = parser.parse_model(HEADER + "(float[n,1] a, float[n,1] b) => (float[n,1] y) { y = Mul(a, b) }")
# f = x₁ + 10·x₂ + x₁·x₂.
CROSSED = parser.parse_model(
    HEADER + "(float[n,2] x) => (float[n,1] y) <float[2,1] w = {1, 10}, int64[1] last = {1}>"
    " { l = MatMul(x, w) p = ReduceProd<keepdims = 1>(x, last) y = Add(l, p) }"
)


@functools.cache
def network(name: str = "efficientnet_b0"):
    net, shape = NETWORKS[name]()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(6))
    model = convert(net.eval(), x)
    return net.double(), x.double().numpy(), differentiate(model, "torch", precision="float64")


@saliency.needs_saliency
@pytest.mark.parametrize("fraction, max_dist", [(0.25, 0.02), (0.5, 1.0), (0.1, 0.1), (1.0, 0.0)])
def test_equals_the_authors_code_at_equal_settings(fraction, max_dist):
    net, x, fn = network()

    def gradient(images: np.ndarray) -> np.ndarray:
        at = torch.tensor(np.moveaxis(images, -1, 1), requires_grad=True)
        return np.moveaxis(torch.autograd.grad(net(at)[:, 3].sum(), at)[0].numpy(), 1, -1)

    settings = {"steps": 20, "fraction": fraction, "max_dist": max_dist}
    ours = guided_integrated_gradients(fn, x, 3, baseline=0.1, rule="left", **settings).attributions
    for image, found in zip(x, ours, strict=True):
        channels_last = np.moveaxis(image, 0, -1)
        theirs = saliency.guided_ig(gradient, channels_last, np.full_like(channels_last, 0.1), **settings)
        theirs = np.moveaxis(theirs, -1, 0)
        assert np.linalg.norm(found - theirs) <= 1e-4 * np.linalg.norm(theirs)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_without_a_bound_the_features_move_one_after_the_other(backend):
    # From 0 to (2, 3): ∂f/∂x₁ = 1 + x₂ is 1 at first and ∂f/∂x₂ = 10 + x₁, so x₁ goes to 2 before x₂ moves: its
    # share is 2 and that of x₂ is (10 + 2)·3, where the straight line shares the product's 6 equally.
    x = np.array([[2.0, 3.0]], np.float32)
    fn = differentiate(CROSSED, backend)
    guided = guided_integrated_gradients(fn, x, fraction=0.5, max_dist=1.0, steps=100)
    np.testing.assert_allclose(guided.attributions, [[2, 36]], atol=1e-4)
    np.testing.assert_allclose(guided.delta, 0, atol=1e-4)
    straight = integrated_gradients(fn, x, steps=8)
    np.testing.assert_allclose(straight.attributions, [[5, 33]], atol=1e-4)
    assert guided.attributions.dtype == np.float32


@pytest.mark.parametrize("anchors", [1, 4])
def test_a_path_with_anchors_returns_to_the_straight_line(anchors):
    # Between anchors x₁ moves first: over p parts the product's integral for x₁ is 6 · Σ k/p² for k below p.
    parts = anchors + 1
    x = np.array([[2.0, 3.0]], np.float32)
    found = guided_integrated_gradients(
        CROSSED, x, fraction=0.5, max_dist=1.0, steps=50 * parts, anchors=anchors
    )
    share = 6 * sum(range(parts)) / parts**2
    np.testing.assert_allclose(found.attributions, [[2 + share, 30 + 6 - share]], atol=1e-3)


def test_without_freedom_it_is_integrated_gradients():
    _, x, fn = network()
    guided = guided_integrated_gradients(fn, x, 3, max_dist=0.0, steps=16, baseline=0.1)
    straight = integrated_gradients(fn, x, 3, rule="trapezoid", steps=17, baseline=0.1)
    difference = np.linalg.norm(guided.attributions - straight.attributions)
    assert difference <= 1e-6 * np.linalg.norm(straight.attributions)
    np.testing.assert_allclose(guided.delta, straight.delta, atol=1e-6)


def test_several_inputs_are_ordered_together():
    # f = a·b from (0, 0): the first step ties at gradient 0 and takes both; from (1, 0), ∂f/∂a = 0 moves a first.
    a, b = np.array([[3.0]], np.float32), np.array([[5.0]], np.float32)
    found = guided_integrated_gradients(
        PRODUCT, {"a": a, "b": b}, baseline={"a": 1.0, "b": 0.0}, fraction=0.5, max_dist=1.0, steps=200
    )
    np.testing.assert_allclose(found.attributions["a"], 0, atol=1e-3)
    np.testing.assert_allclose(found.attributions["b"], 15, atol=1e-3)


@pytest.mark.parametrize("rule, order", [("left", 1), ("trapezoid", 2)])
def test_completeness_converges_with_the_order_of_the_rule(rule, order):
    # A band of no width: the path does not change with the steps. f = x₁ + 10·x₂ + x₁·x₂ would be exact by trapezoids.
    cube = parser.parse_model(
        HEADER + "(float[n,2] x) => (float[n,1] y) <int64[1] last = {1}>"
        " { s = Exp(x) y = ReduceProd<keepdims = 1>(s, last) }"
    )
    fn = differentiate(cube, "torch", precision="float64")
    x = np.array([[0.5, 1.5]])
    deltas = [
        guided_integrated_gradients(fn, x, max_dist=0.0, steps=steps, rule=rule).delta[0]
        for steps in (20, 40, 80)
    ]
    np.testing.assert_allclose(np.divide(deltas[:-1], deltas[1:]), 2**order, rtol=0.1)


def test_the_sum_is_held_to_the_outputs_at_both_ends():
    net, x, fn = network()
    found = guided_integrated_gradients(fn, x, None, baseline=0.1, steps=60)
    with torch.no_grad():
        y, at_start = net(torch.tensor(x)).numpy(), net(torch.full_like(torch.tensor(x), 0.1)).numpy()
    np.testing.assert_array_equal(found.target, y.argmax(1))
    expected = y.max(axis=1) - at_start[[0, 1], y.argmax(1)]
    np.testing.assert_allclose(found.completeness.output, expected, atol=1e-5)
    np.testing.assert_allclose(found.delta, found.attributions.sum(axis=(1, 2, 3)) - expected, atol=1e-5)
    assert (np.abs(found.delta) <= 0.02 * np.abs(expected)).all()
    assert found.evaluations == 61


def test_several_baselines_are_averaged_with_their_standard_error():
    x = np.array([[2.0, 3.0]], np.float32)
    starts = [np.array([[0.0, 1.0]]), np.array([[1.0, -1.0]])]
    one, two = (guided_integrated_gradients(CROSSED, x, baseline=start, steps=10) for start in starts)
    both = guided_integrated_gradients(CROSSED, x, baseline=Dataset(np.concatenate(starts)), steps=10)
    np.testing.assert_allclose(both.attributions, (one.attributions + two.attributions) / 2, rtol=1e-5)
    np.testing.assert_allclose(
        both.standard_error, np.abs(one.attributions - two.attributions) / 2, rtol=1e-4
    )
    np.testing.assert_allclose(
        both.completeness.output, (one.completeness.output + two.completeness.output) / 2
    )
    assert one.standard_error is None
    assert both.evaluations == 22
    assert len(both.baseline) == 2


def test_results_do_not_depend_on_the_batch_and_progress_ends():
    _, x, fn = network()
    seen = []
    one = guided_integrated_gradients(
        fn, x, 3, steps=4, batch_size=1, progress=lambda *state: seen.append(state)
    )
    many = guided_integrated_gradients(fn, x, 3, steps=4)
    np.testing.assert_allclose(one.attributions, many.attributions, atol=1e-10)
    assert seen[-1] == (10, 10)
    assert len(seen) == 10


def test_an_input_at_its_baseline_is_given_nothing():
    x = np.array([[2.0, 3.0], [1.0, 1.0]], np.float32)
    found = guided_integrated_gradients(CROSSED, x, baseline=x[1:], steps=5)
    np.testing.assert_array_equal(found.attributions[1], 0)
    np.testing.assert_array_equal(found.delta[1], 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"steps": 0}, AnalysisError, "0 steps and 0 anchors"),
        ({"steps": 3, "anchors": 3}, AnalysisError, "no step between two anchors"),
        ({"steps": 2.5}, AnalysisError, "steps=2.5 .* whole numbers"),
        ({"anchors": -1}, AnalysisError, "-1 anchors"),
        ({"fraction": 0}, AnalysisError, "above 0 and at most 1, got 0"),
        ({"fraction": 1.5}, AnalysisError, "got 1.5"),
        ({"max_dist": -0.1}, AnalysisError, "from 0 to 1, got -0.1"),
        ({"rule": "simpson"}, AnalysisError, "unknown rule 'simpson'"),
        ({"baseline": np.zeros((3, 7))}, ShapeError, "does not broadcast"),
        ({"batch_size": 0}, AnalysisError, "at least 1, got 0"),
    ],
)
def test_what_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        guided_integrated_gradients(CROSSED, np.ones((1, 2), np.float32), **options)
