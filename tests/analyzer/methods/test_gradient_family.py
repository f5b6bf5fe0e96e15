"""The gradient, input × gradient, SmoothGrad, SmoothGrad² and VarGrad: by hand, and against Captum on its networks."""

from __future__ import annotations

import functools

import captum.attr
import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import differentiate, gradient, input_x_gradient, smooth_grad, smooth_grad_squared, var_grad
from analyzer.errors import AnalysisError
from analyzer.methods.paths.noise import Noise
from converters import convert
from tests.zoo import pytorch_networks, pytorch_sequences, pytorch_transformers

HEADER = '<ir_version: 10, opset_import: ["": 23]> g '
# f = Σ x²: the gradient is 2x.
SQUARE = parser.parse_model(
    HEADER + "(float[n,3] x) => (float[n,1] y)"
    " <int64[1] last = {1}> { s = Mul(x, x) y = ReduceSum<keepdims = 1>(s, last) }"
)
# f = a · i, where i is an integer and has no gradient.
HELD = parser.parse_model(
    HEADER + "(float[n,1] a, int64[n,1] i) => (float[n,1] y) { b = CastLike(i, a) y = Mul(a, b) }"
)
X = np.array([[1.0, -2.0, 0.5], [3.0, 0.0, 1.0]], np.float32)
SMOOTH = {"smoothgrad": smooth_grad, "smoothgrad_sq": smooth_grad_squared, "vargrad": var_grad}
# An image, a signal, and patches with a class token.
FAMILIES = {
    "vgg": pytorch_networks,
    "wavenet": pytorch_sequences,
    "vit": pytorch_transformers,
}
TARGET = 1


@functools.cache
def network(name: str):
    net, found = FAMILIES[name].NETWORKS[name]()
    example = found[0] if isinstance(found[0], torch.Tensor) else pytorch_networks.example_input(found)
    net = net.eval()
    return net, example, convert(net, example)


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_a_quadratic_is_solved_by_hand(backend):
    fn = differentiate(SQUARE, backend)
    np.testing.assert_allclose(gradient(fn, X).attributions, 2 * X, rtol=1e-6)
    np.testing.assert_allclose(gradient(fn, X).map, 2 * np.abs(X), rtol=1e-6)
    found = input_x_gradient(fn, X)
    np.testing.assert_allclose(found.attributions, 2 * X**2, rtol=1e-6)
    # Euler: a function of degree 2 is half of what its input × gradient sums to.
    np.testing.assert_allclose(found.attributions.sum(axis=1), 2 * found.output, rtol=1e-6)


def test_the_noise_is_a_share_of_the_range_of_each_sample():
    rows, copies = np.repeat([0, 1], 4000), np.tile(np.arange(4000), 2)
    noisy = Noise(0.2).noisy({"x": X}, ["x"], rows, copies)["x"].reshape(2, 4000, 3)
    # Ranges 3 and 3.
    np.testing.assert_allclose(noisy.std(axis=1), 0.6, rtol=0.05)
    np.testing.assert_allclose(noisy.mean(axis=1), X, atol=0.05)


def test_the_moments_of_a_quadratic_are_those_of_its_noise():
    # The gradient of a copy is 2x + 2ε: its mean, mean square and variance follow from the very draws.
    n, rows = 7, np.repeat([0, 1], 7)
    copies = np.tile(np.arange(n), 2)
    drawn = 2 * Noise(0.3, seed=4).noisy({"x": X}, ["x"], rows, copies)["x"].reshape(2, n, 3)
    options = {"samples": n, "noise": 0.3, "seed": 4, "batch_size": 3}
    mean, squared, variance = (method(SQUARE, X, **options) for method in SMOOTH.values())
    np.testing.assert_allclose(mean.attributions, drawn.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(mean.standard_error, drawn.std(axis=1, ddof=1) / np.sqrt(n), rtol=1e-5)
    np.testing.assert_allclose(squared.attributions, (drawn**2).mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(squared.standard_error, (drawn**2).std(axis=1, ddof=1) / n**0.5, rtol=1e-5)
    np.testing.assert_allclose(variance.attributions, drawn.var(axis=1), rtol=1e-5)
    assert variance.standard_error is None and mean.samples == n


def test_the_standard_error_is_that_of_repeated_means():
    fn = differentiate(SQUARE)
    found = [smooth_grad(fn, X[:1], samples=10, rng=seed) for seed in range(200)]
    means, stated = zip(*((one.attributions, one.standard_error) for one in found), strict=True)
    np.testing.assert_allclose(np.std(means, axis=0), np.mean(stated, axis=0), rtol=0.15)
    assert smooth_grad(SQUARE, X, samples=1).standard_error is None


def test_a_sample_has_its_noise_whatever_is_drawn_beside_it():
    whole = smooth_grad(SQUARE, X, samples=5, batch_size=10)
    np.testing.assert_array_equal(smooth_grad(SQUARE, X, samples=5, batch_size=3).map, whole.map)
    np.testing.assert_array_equal(smooth_grad(SQUARE, X[:1], samples=5).map, whole.map[:1])
    assert not np.array_equal(smooth_grad(SQUARE, X, samples=5, rng=1).map, whole.map)


def test_integers_are_held_and_a_dict_comes_back_as_one():
    feeds = {"a": np.array([[2.0], [3.0]], np.float32), "i": np.array([[5], [-1]])}
    np.testing.assert_array_equal(gradient(HELD, feeds).attributions["a"], feeds["i"])
    np.testing.assert_array_equal(input_x_gradient(HELD, feeds).map["a"], feeds["a"] * feeds["i"])
    assert set(smooth_grad(HELD, feeds, samples=2).attributions) == {"a"}


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_captum(name):
    net, x, model = network(name)
    leaf = x.clone().requires_grad_()
    saliency = captum.attr.Saliency(net).attribute(leaf, TARGET, abs=False).detach().numpy()
    product = captum.attr.InputXGradient(net).attribute(leaf, TARGET).detach().numpy()
    assert relative_l2(gradient(model, x.numpy(), TARGET).attributions, saliency) <= 1e-4
    assert relative_l2(input_x_gradient(model, x.numpy(), TARGET).attributions, product) <= 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_equals_captums_noise_tunnel_on_the_same_noise(name, monkeypatch):
    net, x, model = network(name)
    samples, rows = 4, np.repeat(np.arange(len(x)), 4)
    feeds = {"x": x.numpy()}
    noisy = Noise(0.1, seed=3).noisy(feeds, ["x"], rows, np.tile(np.arange(samples), len(x)))["x"]
    noise = torch.from_numpy(noisy - x.numpy()[rows])
    monkeypatch.setattr(torch, "normal", lambda mean, deviation: noise)
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(net))
    for kind, method in SMOOTH.items():
        theirs = tunnel.attribute(x, kind, samples, stdevs=1.0, target=TARGET, abs=False).detach().numpy()
        ours = method(model, x.numpy(), TARGET, samples=samples, noise=0.1, rng=3)
        assert relative_l2(ours.attributions, theirs) <= 1e-4


@pytest.mark.parametrize("method", [gradient, input_x_gradient, *SMOOTH.values()])
def test_backends_agree(method):
    _, x, model = network("vgg")
    options = {"samples": 2} if method in SMOOTH.values() else {}
    found = [
        method(differentiate(model, backend), x.numpy(), **options).map
        for backend in ("onnxruntime", "torch", "tensorflow", "source")
    ]
    assert max(relative_l2(one, found[0]) for one in found[1:]) <= 1e-4


def test_double_precision_stays_double():
    _, x, model = network("vgg")
    fn = differentiate(model, "torch", precision="float64")
    for method in (gradient, input_x_gradient, *SMOOTH.values()):
        found = method(fn, x.numpy())
        assert found.attributions.dtype == found.map.dtype == np.float64


def test_the_map_is_over_the_channels_of_an_image_and_of_a_sequence():
    _, x, model = network("vgg")
    found = gradient(model, x.numpy())
    np.testing.assert_array_equal(found.map, np.abs(found.attributions).max(axis=1))
    signed = input_x_gradient(model, x.numpy())
    np.testing.assert_allclose(
        signed.map.sum(axis=(1, 2)), signed.attributions.sum(axis=(1, 2, 3)), rtol=1e-4
    )


@pytest.mark.parametrize("options", [{"samples": 0}, {"noise": -0.1}, {"batch_size": 0}])
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(AnalysisError, match=next(iter(options)).replace("_size", "")):
        smooth_grad(SQUARE, X, **options)
