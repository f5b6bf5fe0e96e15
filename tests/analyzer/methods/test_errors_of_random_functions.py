"""Stated errors against true ones, over random functions whose truth is known by quadrature in float64 or exactly."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from onnx import numpy_helper, parser

from analyzer import (
    conductance,
    differentiate,
    expected_gradients,
    integrated_gradients,
    smooth_grad,
    smooth_grad_squared,
)
from converters import load

FEATURES, UNITS = 4, 24
OPS = {"Relu": torch.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid}


def _fn(body, constants, width=FEATURES):
    """A model (n, width) to (n, 1)."""
    head = '<ir_version: 10, opset_import: ["": 23]> g '
    model = parser.parse_model(f"{head}(float[n,{width}] x) => (float[n,1] y) {{ {body} }}")
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.float32(array), name))
    return differentiate(load(model))


class Layer:
    """Σ v·a(x·w + b) of random weights, and its gradient in float64."""

    def __init__(self, op, gain, bias, seed):
        rng = np.random.default_rng(seed)
        self.w = np.float32(gain * rng.normal(size=(FEATURES, UNITS)))
        self.b = np.float32(bias * rng.normal(size=UNITS))
        self.v = np.float32(rng.normal(size=(UNITS, 1)))
        self.op = OPS[op]
        body = f"h = MatMul(x, w) s = Add(h, b) a = {op}(s) y = MatMul(a, v)"
        self.fn = _fn(body, {"w": self.w, "b": self.b, "v": self.v})

    def slopes(self, s):
        """The derivative of every unit."""
        s = torch.tensor(s).requires_grad_()
        (found,) = torch.autograd.grad(self.op(s).sum(), s)
        return found.numpy()

    def integrated(self, x, start, points=2**15):
        """Of every sample from a start (FEATURES,), by midpoints."""
        alphas = (np.arange(points) + 0.5) / points
        found = []
        for one in x.astype(np.float64):
            at = (start + alphas[:, None] * (one - start)) @ self.w.astype(np.float64) + self.b
            found.append(
                (self.slopes(at).mean(0) * self.v[:, 0]) @ self.w.T.astype(np.float64) * (one - start)
            )
        return np.array(found)

    def smoothed(self, x, spread, points=2**12):
        """The gradient under Gaussian noise: of each unit an integral over one normal number."""
        z = np.linspace(-7, 7, points)
        density = np.exp(-(z**2) / 2)
        density /= density.sum()
        width = np.linalg.norm(self.w.astype(np.float64), axis=0)
        found = []
        for one, sigma in zip(x.astype(np.float64), spread, strict=True):
            at = one @ self.w.astype(np.float64) + self.b + z[:, None] * sigma * width
            found.append(((density @ self.slopes(at)) * self.v[:, 0]) @ self.w.T.astype(np.float64))
        return np.array(found)


def _samples(count, seed=0, size=1.0):
    return np.float32(size * np.random.default_rng(seed).normal(size=(count, FEATURES)))


def _norms(array):
    return np.linalg.norm(array, axis=1)


@pytest.mark.parametrize(
    ("op", "gain", "bias", "size"),
    [
        ("Relu", 1, 1, 1),
        ("Relu", 30, 10, 1),
        ("Relu", 1, 1e-6, 1e-6),
        ("Relu", 1, 1, 1e4),
        ("Tanh", 30, 10, 1),
    ],
)
def test_the_error_of_integrated_gradients_is_at_most_some_twice_the_stated_one(op, gain, bias, size):
    rectified = op == "Relu"
    layer, x = Layer(op, gain, bias, seed=2), _samples(200 if rectified else 50, size=size)
    truth = _of_rectifiers(layer, x) if rectified else layer.integrated(x, np.zeros(FEATURES), 2**13)
    found = integrated_gradients(layer.fn, x, 0, tolerance=0.01, max_evaluations=2000)
    error = _norms(found.attributions - truth) / _norms(truth)
    assert found.converged.mean() > 0.98
    # Gradients are rounded to single precision.
    assert (error <= 2.5 * found.map_error + 2e-5).all()
    assert (error <= 1.5 * 0.05).all()


def _of_rectifiers(layer, x):
    """Integrated Gradients from zeros, exactly: each rectifier switches once."""
    w, b = layer.w.astype(np.float64), layer.b.astype(np.float64)
    s = x.astype(np.float64) @ w
    switch = np.clip(np.divide(-b, s), 0, 1)
    share = np.where(b > 0, np.where(s + b > 0, 1.0, switch), np.where(s + b > 0, 1 - switch, 0.0))
    return (share * layer.v[:, 0]) @ w.T * x


HAT = (
    "a = Sub(s, p) c = Sub(s, m) d = Sub(s, q) ra = Relu(a) rc = Relu(c) rd = Relu(d) r = Mul(rc, two)"
    " e = Sub(ra, r) h = Add(e, rd) k = Mul(h, slope)"
)
PLATEAU = (
    "a = Sub(s, p) d = Sub(q, s) ga = Mul(a, steep) gd = Mul(d, steep) sa = Sigmoid(ga) sd = Sigmoid(gd)"
    " k = Mul(sa, sd)"
)


@pytest.mark.parametrize("body", [HAT, PLATEAU], ids=["three rectifiers", "two sigmoids"])
@pytest.mark.parametrize("width", [0.08, 0.12])
def test_a_bump_between_the_first_points_is_seen(body, width):
    """y = bump(x₀)·x₁ + 0.3·x₂: outputs and gradients are the same on either side of the bump."""
    begin = 0.55
    constants = {"p": begin, "m": begin + width / 2, "q": begin + width, "two": 2, "slope": 2 / width}
    constants |= {"steep": 40 / width, "third": 0.3, **{n: np.eye(3)[:, [k]] for k, n in enumerate("ijl")}}
    parts = "s = MatMul(x, i) u = MatMul(x, j) w = MatMul(x, l)"
    words = set(re.findall(r"\w+", f"{parts} third {body}"))
    used = {name: value for name, value in constants.items() if name in words}
    fn = _fn(f"{parts} {body} b = Mul(k, u) t = Mul(w, third) y = Add(b, t)", used, width=3)
    rng = np.random.default_rng(4)
    # The bump is at another share of every path; it covers more than a sixteenth of it.
    x = np.float32(np.stack([rng.uniform(0.75, 1.2, 100), rng.uniform(1, 4, 100), np.ones(100)], 1))
    alphas = (np.arange(2**16) + 0.5) / 2**16
    s = alphas[:, None] * x[:, 0].astype(np.float64)
    if body is HAT:
        bump = np.clip(1 - np.abs(s - begin - width / 2) * 2 / width, 0, None)
    else:
        gate = 1 / (1 + np.exp(-np.clip((np.stack([s - begin, begin + width - s])) * 40 / width, -500, 500)))
        bump = gate.prod(0)
    area = bump.mean(0) * x[:, 1]
    ends = bump[-1] * x[:, 1]
    truth = np.stack([ends - area, area, 0.3 * x[:, 2]], 1)
    found = integrated_gradients(fn, x, 0, tolerance=0.01, max_evaluations=2000)
    error = _norms(found.attributions - truth) / _norms(truth)
    assert found.converged.all()
    assert (error <= 0.05).all()
    assert (error <= 3 * found.map_error + 1e-4).all()


@pytest.mark.parametrize(
    ("first", "second", "gains", "size"),
    [
        ("Tanh", "Relu", (1, 1, 1), 1e4),
        ("Tanh", "Relu", (1, 1, 1), 1e-5),
        ("Relu", "Tanh", (1, 1, 1), 1),
        ("Relu", "Tanh", (20, 10, 5), 1),
        ("Tanh", "Tanh", (1, 1, 1), 1e4),
    ],
)
def test_the_error_of_conductance_is_at_most_twice_the_stated_one(first, second, gains, size):
    rng = np.random.default_rng(1)
    shapes = {"w": (FEATURES, 10), "b": (10,), "w2": (10, 12), "b2": (12,), "v": (12, 1)}
    sizes = {"w": gains[0], "b": gains[2], "w2": gains[1] / 3, "b2": gains[2], "v": 1}
    constants = {name: np.float32(sizes[name] * rng.normal(size=shape)) for name, shape in shapes.items()}
    front = f"h = MatMul(x, w) hb = Add(h, b) a = {first}(hb)"
    fn = _fn(f"{front} m = MatMul(a, w2) mb = Add(m, b2) c = {second}(mb) y = MatMul(c, v)", constants)
    x, points = _samples(40, seed=3, size=size), 2**11
    w, b, w2, b2, v = (torch.tensor(constants[name]).double() for name in shapes)
    # α = u⁴ resolves a steep beginning.
    u = torch.arange(2 * points + 1).double() / (2 * points)
    y = OPS[first](u[:, None, None] ** 4 * torch.tensor(x).double() @ w + b)
    at = y[1::2].clone().requires_grad_()
    (slope,) = torch.autograd.grad((OPS[second](at @ w2 + b2) @ v).sum(), at)
    truth = (slope * (y[2::2] - y[:-1:2])).sum(0).numpy()
    found = conductance(fn, x, 0, wrt="a", tolerance=0.01, max_evaluations=1000)
    error = _norms(found.attributions - truth) / _norms(truth)
    assert (error <= 2 * found.map_error + 5e-3).all()
    assert (error[found.converged] <= 0.05).all()


@pytest.mark.parametrize(("op", "gain"), [("Tanh", 1), ("Tanh", 30), ("Sigmoid", 200)])
@pytest.mark.parametrize("samples", [10, 25])
def test_the_standard_error_of_noisy_copies_knows_what_they_miss(op, gain, samples):
    """Of a steep function most copies have no gradient: their outputs, which differ, show what is missed."""
    layer, x = Layer(op, gain, gain / 3, seed=2), _samples(100, seed=1)
    truth = layer.smoothed(x, 0.15 * (x.max(1) - x.min(1)))
    found = smooth_grad(layer.fn, x, 0, samples=samples)
    stated = _norms(found.standard_error)
    ratio = _norms(found.attributions - truth) / stated
    assert np.quantile(ratio, 0.95) <= 3
    # Copies that all agree, in outputs too, show nothing of a region that few of them meet: a sample in a hundred.
    agree = stated <= 1e-4 * np.median(_norms(truth))
    assert agree.mean() <= 0.01
    assert ratio[~agree].max() <= 6


def test_copies_that_all_miss_a_step_state_a_bound():
    """σ(10⁴·x₀) around the step: no copy has a gradient, and half of the outputs are 1."""
    fn = _fn("s = MatMul(x, i) h = Mul(s, steep) y = Sigmoid(h)", {"i": [[1], [0]], "steep": 1e4}, width=2)
    x = np.float32([[0, 1]] * 20)
    truth = 1 / np.sqrt(2 * np.pi) / 0.15
    found = smooth_grad(fn, x, 0, samples=25)
    assert (np.abs(found.attributions[:, 0] - truth) > 0.5 * truth).mean() > 0.7
    assert (np.abs(found.attributions[:, 0] - truth) <= 1.5 * found.standard_error[:, 0]).all()
    assert np.isinf(smooth_grad_squared(fn, x, 0, samples=25).standard_error).any()


def test_the_standard_error_of_fewer_than_five_copies_is_unknown():
    layer, x = Layer("Tanh", 1, 1, seed=2), _samples(2)
    assert smooth_grad(layer.fn, x, 0, samples=4).standard_error is None
    assert smooth_grad(layer.fn, x, 0, samples=5).standard_error is not None


@pytest.mark.parametrize(("samples", "most"), [(2, 15), (5, 4), (20, 4)])
@pytest.mark.parametrize(("op", "gain"), [("Relu", 1), ("Sigmoid", 200)])
def test_the_standard_error_of_expected_gradients_covers_the_true_one(samples, most, op, gain):
    layer, x = Layer(op, gain, gain / 3, seed=2), _samples(60, seed=1)
    data = _samples(2, seed=9)
    truth = np.mean([layer.integrated(x, start, 2**12) for start in data.astype(np.float64)], axis=0)
    ratios = []
    for seed in range(3):
        found = expected_gradients(layer.fn, x, 0, data, samples=samples, rng=seed)
        ratios.append(_norms(found.attributions - truth) / _norms(found.standard_error))
        assert (np.abs(found.delta) <= 3.01 * found.delta_error).all()
    assert np.quantile(ratios, 0.95) <= most


def test_the_rounding_of_both_ends_of_a_path_is_allowed_for():
    """f = 10⁶ at the baseline and 0 at the image: their difference is known to 1/16, whichever end is large."""
    fn = _fn(
        "s = Mul(x, x) h = Tanh(s) g = Sub(one, h) y = Mul(g, million)", {"one": 1, "million": 1e6}, width=1
    )
    found = integrated_gradients(fn, np.full((1, 1), 30, np.float32), 0, steps=50)
    assert found.output[0] == 0
    assert found.completeness.output[0] == -1e6
    assert found.completeness.floor[0] >= 0.05
