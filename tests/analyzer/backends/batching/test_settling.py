"""Methods that move inputs: samples that only seem apart, that count themselves, or that share an input."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import Target, differentiate, expected_gradients, full_grad, integrated_gradients, smooth_grad
from analyzer.errors import AnalysisError, TargetError
from analyzer.methods.paths.noise import Noise
from converters import load
from tests.analyzer.backends.batching.networks import HEAD, LAYER, W

X = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
METHODS = (full_grad, integrated_gradients, smooth_grad)


def _fn(body, inputs="float[n,3] x", outputs="float[n,4] y", constants="float three = {3}"):
    weights = f"{LAYER[:-1]}, {constants}, int64 zero = {{0}}, int64 one = {{1}}, int64[1] first = {{0}}>"
    return differentiate(load(parser.parse_model(f"{HEAD}({inputs}) => ({outputs}) {weights} {{ {body} }}")))


def _slope(function, *arrays):
    given = [torch.tensor(np.asarray(a, np.float64), requires_grad=True) for a in arrays]
    return [g.numpy() for g in torch.autograd.grad(function(*given), given)]


def _path(function, *arrays, steps=200):
    """The integral along the path of all arrays together, by the midpoint rule in float64."""
    points = [_slope(function, *(a * ((k + 0.5) / steps) for a in arrays)) for k in range(steps)]
    return [np.mean(along, axis=0) * a for along, a in zip(zip(*points, strict=True), arrays, strict=True)]


# A gate that opens where another sample is large: at X it is closed, at noisy copies it is not.
GATES = {
    "a gate of all rows": (
        "h = MatMul(x, w) m = ReduceMax<keepdims = 1>(h) c = Greater(m, three) q = Mul(h, h) t = Tanh(h) "
        "y = Where(c, t, q)",
        lambda h: torch.where(h.max() > 3, torch.tanh(h), h**2),
    ),
    "a gate of the mean": (
        "h = MatMul(x, w) m = ReduceMean<keepdims = 1>(h, first) d = Sub(m, three) r = Relu(d) q = Mul(h, h) "
        "y = Add(q, r)",
        lambda h: h**2 + torch.relu(h.mean(0, keepdim=True) - 3),
    ),
}


@pytest.mark.parametrize("name", GATES)
def test_samples_that_were_only_tried_are_run_one_at_a_time(name):
    body, function = GATES[name]
    fn = _fn(body)
    assert fn.gradients(X, 1).output.shape == (4,)
    found = smooth_grad(fn, X, 1, samples=6, noise=0.5)
    assert "a call of its own" in found.note
    rows = np.arange(4)
    copies = [Noise(0.5).noisy({"x": X}, ["x"], rows, np.full(4, k))["x"] for k in range(6)]
    expected = [
        np.mean([_slope(lambda x: function(x @ W)[0, 1], c[row][None])[0] for c in copies], 0)[0]
        for row in rows
    ]
    np.testing.assert_allclose(found.attributions, expected, rtol=1e-4, atol=1e-5)
    assert full_grad(fn, X, 1).completeness.error.max() <= 1e-5


COUNTS = {
    "divided by their number": (
        "h = MatMul(x, w) n = Shape<start = 0, end = 1>(x) c = Cast<to = 1>(n) q = Mul(h, h) y = Div(q, c)",
        lambda h: h**2 / len(h),
        "Cast",
    ),
    "weighted by their place": (
        "h = MatMul(x, w) n = Shape<start = 0, end = 1>(x) s = Squeeze(n) r = Range(zero, s, one) "
        "c = Cast<to = 1>(r) q = Mul(h, h) t = Transpose<perm = [1, 0]>(q) m = Mul(t, c) "
        "y = Transpose<perm = [1, 0]>(m)",
        lambda h: h**2 * torch.arange(len(h))[:, None],
        "Range",
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_samples_that_read_their_number_are_explained_as_one(name):
    body, function, op = COUNTS[name]
    fn = _fn(body)
    target = Target(index=(2, 1))
    (expected,) = _path(lambda x: function(x @ W)[2, 1], X)
    found = integrated_gradients(fn, X, target, steps=8)
    assert found.joint and f"({op}) reads the number of samples" in found.note
    np.testing.assert_allclose(found.attributions, expected, rtol=1e-4, atol=1e-5)
    drawn = expected_gradients(fn, X, target, np.zeros((1, 4, 3), np.float32), samples=50)
    np.testing.assert_allclose(drawn.attributions, expected, atol=1e-2)
    for explain in METHODS:
        with pytest.raises(TargetError, match=r"reads the number of samples.*Target\(index=\(row, class\)\)"):
            explain(fn, X, 1)
    with pytest.raises(AnalysisError, match=r'samples="independent".*reads the number'):
        integrated_gradients(differentiate(fn.model, samples="independent"), X, 1)


def test_a_size_that_is_only_a_shape_counts_nothing():
    """A mean over steps, and a state made by the number of samples."""
    fn = _fn(
        "n = Shape<start = 0, end = 1>(x) s = ConstantOfShape(n) u = Unsqueeze(s, axis) h = MatMul(x, w) "
        "q = Mul(h, h) y = Add(q, u)",
        constants="int64[1] axis = {1}",
    )
    found = integrated_gradients(fn, X, 1, steps=8)
    (expected,) = _path(lambda x: ((x @ W) ** 2)[:, 1].sum(), X)
    assert not found.joint
    np.testing.assert_allclose(found.attributions, expected, rtol=1e-4, atol=1e-5)


SHARED = {"a number": ("float t", np.float32(0.7)), "a vector": ("float[3] t", np.float32([0.7, -1.1, 0.4]))}


@pytest.mark.parametrize("name", SHARED)
def test_an_input_that_all_samples_share_is_attributed_in_the_joint_reading(name):
    stated, t = SHARED[name]
    fn = _fn("p = Mul(x, t) h = MatMul(p, w) y = Tanh(h)", inputs=f"float[n,3] x, {stated}")

    def function(x, t):
        return torch.tanh((x * t) @ W)[2, 1]

    feeds, target = {"x": X, "t": t}, Target(index=(2, 1))
    expected = dict(zip("xt", _path(function, X, t), strict=True))
    ig = integrated_gradients(fn, feeds, target, steps=32)
    assert ig.joint and "'t' has no axis of samples" in ig.note
    fg = full_grad(fn, feeds, target)
    slopes = dict(zip("xt", _slope(function, X, t), strict=True))
    for key, array in feeds.items():
        assert ig.attributions[key].shape == np.shape(array)
        np.testing.assert_allclose(ig.attributions[key], expected[key], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fg.input_term[key], slopes[key] * array, rtol=1e-4, atol=1e-6)
    assert fg.completeness.error.max() <= 1e-5
    for explain in METHODS:
        with pytest.raises(TargetError, match=r"'t' has no axis of samples.*Target\(index=\(row, class\)\)"):
            explain(fn, feeds, 1)
    # One sample shares its input with no other.
    alone = integrated_gradients(fn, {"x": X[2:3], "t": t}, 1, steps=32)
    for key in feeds:
        np.testing.assert_allclose(
            alone.attributions[key], expected[key][2:3] if key == "x" else expected[key], rtol=1e-4, atol=1e-5
        )


def test_a_number_alone_is_attributed():
    fn = _fn("y = Mul(t, t)", inputs="float t", outputs="float y")
    found = integrated_gradients(fn, np.float32(3), 0, steps=4)
    np.testing.assert_allclose(found.attributions, 9, rtol=1e-5)


def test_samples_on_different_axes_of_two_inputs_go_together():
    fn = _fn(
        "r = Transpose<perm = [1, 0]>(z) p = Mul(x, r) y = MatMul(p, w)", inputs="float[n,3] x, float[3,n] z"
    )
    z = np.random.default_rng(4).normal(size=(3, 4)).astype(np.float32)
    found = integrated_gradients(fn, {"x": X, "z": z}, 1, steps=4)
    expected = X * z.T * W.numpy()[:, 1] / 2
    assert not found.joint
    np.testing.assert_allclose(found.attributions["x"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.attributions["z"], expected.T, rtol=1e-4, atol=1e-6)
    assert full_grad(fn, {"x": X, "z": z}, 1).completeness.error.max() <= 1e-5


def test_a_path_of_several_samples_within_a_network_that_gathers_across_them_is_refused():
    """The rows of the end tokens are found across the batch, as in BART: a path runs for one sample a call."""
    table = ", ".join(str(value) for value in np.linspace(-1, 1, 15).round(3))
    fn = _fn(
        "e = Gather(table, ids) ends = Equal(ids, two) found = NonZero(ends) places = Transpose(found) "
        "last = GatherND(e, places) h = MatMul(last, w) t = Tanh(h) y = Identity(t)",
        inputs="int64[n,t] ids",
        constants=f"float[5,3] table = {{{table}}}, int64 two = {{2}}",
    )
    ids = np.array([[0, 1, 2], [3, 2, 4]])
    with pytest.raises(AnalysisError, match="Fix: give one sample a call"):
        integrated_gradients(fn, ids, 1, wrt="e")
    for row in ids:
        end = np.linspace(-1, 1, 15).round(3).reshape(5, 3)[2]
        (expected,) = _path(lambda v: torch.tanh(v @ torch.tensor(W, dtype=torch.float64))[1], end)
        found = integrated_gradients(fn, row[None], 1, wrt="e").attributions
        np.testing.assert_allclose(found[0, row == 2][0], expected, atol=1e-4)


def test_samples_of_a_stated_batch_that_are_computed_each_in_its_own_way_stay_where_they_are():
    scale = np.array([[1.0], [5.0], [-3.0]], np.float32)
    text = """<ir_version: 10, opset_import: ["" : 21]> g (float[3,4] x) => (float[3,2] y)
        <float[3,1] w = {1.0, 5.0, -3.0}, float[4,2] v = {1.0, 2.0, -1.0, 0.5, 0.3, 1.0, 2.0, -2.0}>
        { h = Mul(x, w) s = Sigmoid(h) y = MatMul(s, v) }"""
    v = np.array([[1.0, 2.0], [-1.0, 0.5], [0.3, 1.0], [2.0, -2.0]])
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    fn = differentiate(load(parser.parse_model(text)))
    s = 1 / (1 + np.exp(-x * scale.astype(np.float64)))
    np.testing.assert_allclose(fn.gradients(x, 0).gradients["x"], s * (1 - s) * scale * v[:, 0], rtol=1e-4)
    weights = np.broadcast_to(np.array([1.0, 0.0], np.float32), (3, 2))
    for size in (1, 2, 3, None):
        with pytest.raises(TargetError, match="computes each of its 3 samples in its own way"):
            integrated_gradients(fn, x, 0, batch_size=size)
        found = integrated_gradients(fn, x, Target(weights=weights), batch_size=size)
        assert found.completeness.error.max() < 1e-5
    with pytest.raises(AnalysisError, match="give 3 samples a call, got 2"):
        smooth_grad(fn, x[:2], 0)


def test_samples_of_a_stated_batch_that_are_computed_alike_may_move():
    text = f"{HEAD}(float[3,3] x) => (float[3,4] y) {LAYER} {{ h = MatMul(x, w) y = Sigmoid(h) }}"
    fn = differentiate(load(parser.parse_model(text)))
    found = integrated_gradients(fn, X, 0, batch_size=1)
    assert found.output.shape == (4,) and found.completeness.error.max() < 1e-5
