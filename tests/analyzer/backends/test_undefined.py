"""Gradients past infinite derivatives: the right number where a branch is not taken, an error elsewhere, never NaN."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from analyzer import differentiate, full_grad, gradient, integrated_gradients, smooth_grad
from analyzer.errors import AnalysisError
from converters import load

CONSTANTS = "float zero = {0}, float one = {1}, float low = {-1}, float big = {20}, int64[1] last = {1}"
X = np.float32([[0, 0, 0], [1, 0.4, -0.7]])


def _fn(body, backend="onnxruntime"):
    text = f'<ir_version: 10, opset_import: ["": 20]> g (float[n,3] x) => (float[n,k] y) <{CONSTANTS}> {{ {body} }}'
    return differentiate(load(parser.parse_model(text)), backend)


# The derivative of y[:, 0] in x, element by element, in float64.
GUARDED = {
    "√x": ("c = Greater(x, zero) r = Sqrt(x) y = Where(c, r, zero)", X, [0, 0.5]),
    "log x": ("c = Greater(x, zero) r = Log(x) y = Where(c, r, zero)", X, [0, 1]),
    "1/x": ("c = Equal(x, zero) r = Reciprocal(x) y = Where(c, zero, r)", X, [0, -1]),
    "x²/x": ("c = Equal(x, zero) q = Mul(x, x) r = Div(q, x) y = Where(c, zero, r)", X, [0, 1]),
    "sinc": (
        "c = Equal(x, zero) s = Sin(x) r = Div(s, x) y = Where(c, one, r)",
        X,
        [0, np.cos(1) - np.sin(1)],
    ),
    "x log x": (
        "c = Greater(x, zero) l = Log(x) r = Mul(x, l) y = Where(c, r, zero)",
        X,
        [0, 1],
    ),
    "softplus": (
        "e = Exp(x) p = Add(e, one) l = Log(p) c = Greater(x, big) y = Where(c, x, l)",
        np.float32([[200, 0, 0], [1, 200, 0]]),
        [1, 1 / (1 + np.exp(-1))],
    ),
    "another class": ("m = Mul(x, x) y = Sqrt(m)", np.float32([[2, 0, 0], [-3, 0, 0]]), [1, -1]),
    "beyond a clip": (
        "c = Clip(x, low, one) y = Acos(c)",
        np.float32([[1.5, 0, 0], [0, 0, 0]]),
        [0, -1],
    ),
    "a row that is masked whole": (
        "c = Less(x, zero) i = Log(zero) s = Where(c, i, x) p = Softmax(s) n = IsNaN(p) y = Where(n, zero, p)",
        np.float32([[-1, -2, -3], [0, 0, -1]]),
        [0, 0.25],
    ),
}


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
@pytest.mark.parametrize("name", GUARDED)
def test_a_branch_that_is_not_taken_adds_nothing(name, backend):
    body, x, expected = GUARDED[name]
    fn = _fn(body, backend)
    found = fn.gradients(x, 0)
    np.testing.assert_allclose(found.gradients["x"][:, 0], expected, rtol=1e-5, atol=1e-6)
    assert np.isfinite(found.gradients["x"]).all()
    if name != "beyond a clip":
        # There the residual of Acos is infinite, and refused.
        assert full_grad(fn, x, 0).completeness.error.max() <= 1e-5


UNDEFINED = {
    "the root of a sum of squares": (
        "q = Mul(x, x) s = ReduceSum(q, last) y = Sqrt(s)",
        r"gradient of 'y' is not finite: node .*\(Sqrt\)",
    ),
    "a standard deviation": (
        "m = ReduceMean(x, last) d = Sub(x, m) q = Mul(d, d) v = ReduceMean(q, last) y = Sqrt(v)",
        r"gradient of 'y' is not finite: node .*\(Sqrt\)",
    ),
    "0 log 0": ("l = Log(x) y = Mul(x, l)", r"NaN or an infinity in 'y': node .*\(Log\)"),
    "0 / 0": ("a = Abs(x) y = Div(x, a)", r"NaN or an infinity in 'y': node .*\(Div\)"),
    "log 0": ("y = Log(x)", r"NaN or an infinity in 'y': node .*\(Log\)"),
}


@pytest.mark.parametrize("name", UNDEFINED)
def test_what_is_undefined_is_refused_with_the_node(name):
    body, match = UNDEFINED[name]
    fn = _fn(body)
    for explain in (
        lambda: fn.gradients(X, 0),
        lambda: gradient(fn, X, 0),
        lambda: full_grad(fn, X, 0),
        lambda: smooth_grad(fn, X, 0, samples=2, noise=0.0),
    ):
        with pytest.raises(
            AnalysisError, match=match if explain.__code__.co_names[0] != "smooth_grad" else "finite"
        ):
            explain()


def test_a_baseline_without_an_output_is_refused():
    """0 / 0 at zeros: no node of the quadrature lies there, but the sum must be f(x) − f(0)."""
    fn = _fn("m = ReduceMax(x, last) y = Div(x, m)")
    with pytest.raises(AnalysisError, match=r"baseline"):
        integrated_gradients(fn, X[1:], 1, rule="midpoint", steps=4)
