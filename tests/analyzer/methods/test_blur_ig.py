"""Blur Integrated Gradients against closed forms, the authors' code, and its own completeness."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from onnx import numpy_helper, parser
from scipy import ndimage

from analyzer import blur_integrated_gradients, differentiate
from analyzer.errors import AnalysisError
from converters import convert
from tests.peers import saliency
from tests.zoo.pytorch_networks import NETWORKS

HEADER = '<ir_version: 10, opset_import: ["": 23]> g '
WEIGHTS = np.random.default_rng(1).normal(size=(1, 1, 6, 8)).astype(np.float32)
IMAGES = np.random.default_rng(2).normal(size=(3, 1, 6, 8)).astype(np.float32)


def summed(of: str, channels_last: bool = False):
    """The model f = Σ w·x, or Σ w·x² for `of` = "square", of images (N, 1, 6, 8) or (N, 6, 8, 1)."""
    shape, factor = ("6,8,1" if channels_last else "1,6,8"), {"x": "x", "square": "s"}[of]
    model = parser.parse_model(
        HEADER
        + f"(float[n,{shape}] x) => (float[n,1] y) <int64[3] all = {{1, 2, 3}}, int64[2] flat = {{-1, 1}}>"
        f"{{ s = Mul(x, x) p = Mul(w, {factor}) r = ReduceSum<keepdims = 0>(p, all) y = Reshape(r, flat) }}"
    )
    weights = WEIGHTS.reshape(1, 6, 8, 1) if channels_last else WEIGHTS
    model.graph.initializer.append(numpy_helper.from_array(weights, "w"))
    return model


@functools.cache
def network(name: str = "efficientnet_b0"):
    net, shape = NETWORKS[name]()
    noise = torch.randn(2, *shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    x = ndimage.gaussian_filter(noise.numpy(), (0, 0, 1, 1), mode="nearest") * 3
    model = convert(net.eval(), torch.tensor(x, dtype=torch.float32))
    return net.double(), x, differentiate(model, "torch", precision="float64")


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
@pytest.mark.parametrize("border, mode", [("edge", "nearest"), ("zero", "constant")])
def test_a_linear_model_is_given_what_the_blur_takes_away(backend, border, mode):
    # The gradient is w everywhere, and ∫ ∂L/∂σ dσ is the difference between the path's ends: w · (x − blurred x).
    fn = differentiate(summed("x"), backend)
    found = blur_integrated_gradients(fn, IMAGES, max_sigma=2.5, steps=64, border=border)
    ends = ndimage.gaussian_filter(IMAGES.astype(np.float64), (0, 0, 2.5, 2.5), mode=mode, truncate=8)
    np.testing.assert_allclose(found.attributions, WEIGHTS * (IMAGES - ends), atol=2e-5)
    np.testing.assert_allclose(found.baseline, ends, atol=1e-5)
    np.testing.assert_allclose(found.delta, 0, atol=2e-5)
    assert found.attributions.dtype == np.float32


def test_a_quadratic_has_its_closed_form():
    # f = Σ w·x²: the integral of −2w·L·∂L/∂σ is w · (x² − (blurred x)²).
    found = blur_integrated_gradients(summed("square"), IMAGES, max_sigma=2.5, steps=64)
    ends = ndimage.gaussian_filter(IMAGES.astype(np.float64), (0, 0, 2.5, 2.5), mode="nearest", truncate=8)
    np.testing.assert_allclose(found.attributions, WEIGHTS * (IMAGES**2 - ends**2), atol=5e-5)


def test_channels_may_stand_last():
    first = blur_integrated_gradients(summed("square"), IMAGES, max_sigma=3, steps=8)
    last = blur_integrated_gradients(
        summed("square", channels_last=True), IMAGES.reshape(3, 6, 8, 1), max_sigma=3, steps=8
    )
    np.testing.assert_allclose(last.attributions.reshape(IMAGES.shape), first.attributions, atol=1e-6)


@pytest.mark.parametrize("rule, order", [("left", 1), ("trapezoid", 2)])
def test_completeness_converges_with_the_order_of_the_rule(rule, order):
    # The trapezoid counts both ends of its intervals as points.
    model, more = summed("square"), int(rule == "trapezoid")
    fn = differentiate(model, "torch", precision="float64")
    x = IMAGES.astype(np.float64)
    deltas = [
        blur_integrated_gradients(fn, x, max_sigma=2.0, steps=steps + more, rule=rule).delta
        for steps in (40, 80, 160)
    ]
    ratios = np.array(deltas[:-1]) / np.array(deltas[1:])
    np.testing.assert_allclose(ratios, 2**order, rtol=0.1)


@saliency.needs_saliency
@pytest.mark.parametrize("max_sigma, steps", [(20.0, 40), (5.0, 10)])
def test_equals_the_authors_code_at_equal_steps(max_sigma, steps):
    net, x, fn = network()

    def gradient(images: np.ndarray) -> np.ndarray:
        at = torch.tensor(np.moveaxis(images, -1, 1), requires_grad=True)
        return np.moveaxis(torch.autograd.grad(net(at)[:, 3].sum(), at)[0].numpy(), 1, -1)

    ours = blur_integrated_gradients(
        fn, x[:1], 3, max_sigma=max_sigma, steps=steps, rule="left", border="zero"
    )
    theirs = saliency.blur_ig(
        gradient, np.moveaxis(x[0], 0, -1), max_sigma=max_sigma, steps=steps, grad_step=1e-4
    )
    theirs = np.moveaxis(theirs, -1, 0)
    assert np.linalg.norm(ours.attributions[0] - theirs) <= 1e-3 * np.linalg.norm(theirs)


def test_the_sum_is_held_to_the_outputs_at_both_ends():
    net, x, fn = network()
    found = blur_integrated_gradients(fn, x, 3, max_sigma=10, steps=40)
    with torch.no_grad():
        outputs, blurred = (net(torch.tensor(at))[:, 3].numpy() for at in (x, found.baseline))
    np.testing.assert_allclose(found.completeness.output, outputs - blurred, atol=1e-5)
    total = found.attributions.sum(axis=(1, 2, 3))
    np.testing.assert_allclose(found.delta, total - (outputs - blurred), atol=1e-5)
    assert (np.abs(found.delta) < 0.1 * np.abs(outputs - blurred)).all()
    assert found.evaluations == 40


def test_results_do_not_depend_on_the_batch_and_progress_ends():
    _, x, fn = network()
    seen = []
    one = blur_integrated_gradients(fn, x, None, max_sigma=5, steps=5, batch_size=1)
    many = blur_integrated_gradients(
        fn, x, None, max_sigma=5, steps=5, batch_size=7, progress=lambda *state: seen.append(state)
    )
    np.testing.assert_allclose(one.attributions, many.attributions, atol=1e-10)
    assert seen == [(7, 10), (10, 10)]


def test_inputs_without_spatial_axes_are_held():
    model = parser.parse_model(
        HEADER + "(float[n,1,6,8] x, float[n,1] t) => (float[n,1] y)"
        " <int64[3] all = {1, 2, 3}, int64[2] flat = {-1, 1}>"
        " { r = ReduceSum<keepdims = 0>(x, all) s = Reshape(r, flat) y = Mul(s, t) }"
    )
    table = np.array([[1.0], [2.0], [-3.0]], np.float32)
    found = blur_integrated_gradients(model, {"x": IMAGES, "t": table}, max_sigma=2, steps=48, border="zero")
    ends = ndimage.gaussian_filter(IMAGES.astype(np.float64), (0, 0, 2, 2), mode="constant", truncate=8)
    np.testing.assert_allclose(found.attributions["x"], table[:, :, None, None] * (IMAGES - ends), atol=5e-5)
    assert set(found.attributions) == {"x"}
    np.testing.assert_array_equal(found.baseline["t"], table)


def test_a_signal_is_blurred_along_its_steps():
    model = parser.parse_model(
        HEADER + "(float[n,2,9] x) => (float[n,2] y)"
        " <float[2,2,1] k = {1, 2, 3, 4}, int64[1] steps = {2}>"
        " { c = Conv(x, k) y = ReduceSum<keepdims = 0>(c, steps) }"
    )
    x = np.random.default_rng(4).normal(size=(2, 2, 9)).astype(np.float32)
    found = blur_integrated_gradients(model, x, 1, max_sigma=3, steps=64, border="zero")
    ends = ndimage.gaussian_filter(x.astype(np.float64), (0, 0, 3), mode="constant", truncate=8)
    kernel = np.array([3.0, 4.0])[:, None]
    np.testing.assert_allclose(found.attributions, kernel * (x - ends), atol=5e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_sigma": 0}, "above 0, got 0"),
        ({"max_sigma": np.inf}, "above 0, got inf"),
        ({"border": "wrap"}, "unknown border 'wrap'"),
        ({"rule": "none"}, "unknown rule 'none'"),
        ({"batch_size": 0}, "at least 1, got 0"),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(AnalysisError, match=message):
        blur_integrated_gradients(summed("x"), IMAGES, **options)


def test_a_table_is_refused():
    table = parser.parse_model(HEADER + "(float[n,4] t) => (float[n,4] y) { y = Sin(t) }")
    with pytest.raises(AnalysisError, match=r"needs an input with spatial axes, got 't' \(2, 4\)"):
        blur_integrated_gradients(table, np.ones((2, 4), np.float32))
