"""Stated errors are not below the true ones: saturated functions, large constants in the output, few draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import conductance, differentiate, expected_gradients, integrated_gradients
from converters import load

CONSTANTS = (
    "float[3] scale = {1, 1, 1}, float offset = {1e6}, float steep = {200}, float half = {0.5}, float fifty = {50}, "
    "float[3,2] w = {1.3, -0.2, -0.4, 1.6, 0.8, 3.1}"
)
W = torch.tensor(np.float32([[1.3, -0.2], [-0.4, 1.6], [0.8, 3.1]])).double()
X = np.float32([[0.3, -1.2, 2.0], [1.0, 0.4, -0.7]])


def _fn(body, width=3):
    head = f'<ir_version: 10, opset_import: ["": 23]> g (float[n,{width}] x) => (float[n,k] y)'
    return differentiate(load(parser.parse_model(f"{head} <{CONSTANTS}> {{ {body} }}")))


def _truth(function, x, points=20001, power=6):
    """The integral from zeros in float64; α = u⁶ resolves a steep beginning."""
    u = (np.arange(points) + 0.5) / points
    ends = torch.tensor(x, dtype=torch.float64)
    path = (torch.tensor(u**power)[:, None, None] * ends).requires_grad_()
    (g,) = torch.autograd.grad(function(path)[..., 0].sum(), path)
    return (torch.tensor(power * u ** (power - 1) / points)[:, None, None] * g).sum(0).numpy() * x


SMOOTH = {
    "a saturated softmax": (
        "m = MatMul(x, w) h = Mul(m, fifty) y = Softmax(h)",
        lambda x: torch.softmax(50 * (x @ W), -1),
    ),
    "a norm of nothing": (
        "n = RMSNormalization<epsilon = 1e-6>(x, scale) h = MatMul(n, w) y = Tanh(h)",
        lambda x: torch.tanh((x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6)) @ W),
    ),
    "an output of a million": (
        "m = MatMul(x, w) h = Tanh(m) y = Add(h, offset)",
        lambda x: torch.tanh(x @ W),
    ),
}


@pytest.mark.parametrize("tolerance", [1e-2, 1e-4])
@pytest.mark.parametrize("name", SMOOTH)
def test_the_stated_error_of_a_map_is_not_below_the_true_one(name, tolerance):
    body, function = SMOOTH[name]
    truth = _truth(function, X)
    found = integrated_gradients(_fn(body), X, 0, tolerance=tolerance, max_evaluations=4000)
    error = np.linalg.norm(found.attributions - truth, axis=1) / np.linalg.norm(truth, axis=1)
    assert found.converged.all()
    # Gradients are rounded to single precision.
    assert (error <= 1.1 * found.map_error + 5e-6).all()
    assert (error <= 5 * tolerance).all()


def test_an_output_of_a_million_hides_its_difference():
    """tanh(x) + 10⁶ in single precision: the difference of two outputs is known to 1/16, and the map is not."""
    body, function = SMOOTH["an output of a million"]
    fn, truth = _fn(body), _truth(function, X)
    difference = truth.sum(axis=1)
    for found in (
        integrated_gradients(fn, X, 0, tolerance=1e-3),
        integrated_gradients(fn, X, 0, steps=50),
        conductance(fn, X, 0, wrt="m", tolerance=1e-3),
    ):
        own = found.completeness
        np.testing.assert_allclose(own.total, difference, rtol=1e-3)
        assert (np.abs(own.output - difference) <= own.floor).all()
        assert own.within(1e-3).all()
    drawn = [
        expected_gradients(fn, X, 0, np.zeros((1, 3), np.float32), samples=100, rng=seed) for seed in range(8)
    ]
    size, stated = (
        np.sqrt(np.mean(np.square(all), axis=0))
        for all in zip(*((d.delta, d.delta_error) for d in drawn), strict=True)
    )
    assert (size <= 2 * stated).all()


def test_draws_that_all_miss_the_step_state_what_the_sum_shows():
    """σ(200·(x − ½)) from 0 to 1: the attribution is 1, and nearly every gradient on the path is 0."""
    fn = _fn("s = Sub(x, half) h = Mul(s, steep) y = Sigmoid(h)", width=1)
    errors, stated, sums = [], [], []
    for seed in range(24):
        found = expected_gradients(
            fn, np.ones((1, 1), np.float32), 0, np.zeros((1, 1), np.float32), samples=2, rng=seed
        )
        errors.append(found.attributions - 1)
        stated.append(found.standard_error)
        sums.append(found.delta_error)
    size = np.sqrt(np.mean(np.square(errors)))
    assert size <= 1.5 * np.sqrt(np.mean(np.square(stated)))
    assert size <= 1.5 * np.sqrt(np.mean(np.square(sums)))
