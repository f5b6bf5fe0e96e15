"""Rows that depend on one another are one sample: gradients, integrals and sums are those of the whole call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import Target, check, differentiate, full_grad, gradient, integrated_gradients, smooth_grad
from analyzer.errors import AnalysisError, TargetError
from converters import load
from tests.analyzer.backends.batching.networks import MIXING, Mixing

X = np.random.default_rng(3).normal(size=(4, 3)).astype(np.float32)
named = pytest.mark.parametrize("net", MIXING, ids=lambda net: net.name)


def _gradient(net: Mixing, x: torch.Tensor) -> torch.Tensor:
    at = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(net.function(at)[net.element], at)
    return found


def _integral(net: Mixing, steps: int = 400) -> np.ndarray:
    """The path of all rows together, by the midpoint rule in float64."""
    x = torch.tensor(X, dtype=torch.float64)
    total = sum(_gradient(net, x * ((k + 0.5) / steps)) for k in range(steps))
    return (total / steps * x).numpy()


def _apart(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@named
def test_all_rows_move_together(net):
    model = load(parser.parse_model(net.text))
    expected = _gradient(net, torch.tensor(X, dtype=torch.float64)).numpy()
    found = differentiate(model).gradients(X, net.target)
    assert found.output.shape == (1,)
    assert found.samples == "joint"
    assert _apart(found.gradients["x"], expected) <= 1e-5

    # The path from zeros passes a tie of all rows where these are sorted.
    ig = integrated_gradients(model, X, net.target, steps=64)
    assert (ig.attributions.shape, ig.samples, ig.joint) == (X.shape, "joint", True)
    assert _apart(ig.attributions, _integral(net)) <= 1e-3
    assert ig.completeness.error.shape == (1,)

    exact = full_grad(differentiate(model, "torch", precision="float64"), X, net.target)
    assert exact.completeness.error.shape == (1,)
    assert exact.completeness.error[0] <= 1e-10
    assert _apart(exact.input_term, X * expected) <= 1e-10
    assert exact.samples == "joint"


@pytest.mark.parametrize(
    "net", [net for net in MIXING if isinstance(net.target, Target)], ids=lambda net: net.name
)
def test_a_class_of_every_row_is_refused_with_both_spellings(net):
    model = load(parser.parse_model(net.text))
    for explain in (
        full_grad,
        integrated_gradients,
        gradient,
        lambda m, x, t: differentiate(m).gradients(x, t),
    ):
        with pytest.raises(
            TargetError, match=r"'y'.*Target\(index=\(row, class\)\).*Target\(weights=array\)"
        ):
            explain(model, X, 1)


def test_noise_is_drawn_for_the_whole_call():
    net = MIXING[2]
    model = load(parser.parse_model(net.text))
    smooth = smooth_grad(model, X, net.target, samples=3, noise=0.0)
    expected = _gradient(net, torch.tensor(X, dtype=torch.float64)).numpy()
    assert smooth.joint
    assert _apart(smooth.attributions, expected) <= 1e-5


def test_backends_are_compared_on_the_whole_call():
    net = MIXING[0]
    report = check(load(parser.parse_model(net.text)), X, net.target, backends=["onnxruntime", "torch"])
    report.raise_for_disagreement()
    assert report.samples == "joint"
    assert "several of them" in report.note


def test_the_user_decides():
    mixing, apart = load(parser.parse_model(MIXING[1].text)), load(parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n,3] x) => (float[n,3] y) { y = Tanh(x) }'
    ))  # fmt: skip
    with pytest.raises(AnalysisError, match=r"node .*ReduceMean.* computes 'm' from several"):
        differentiate(mixing, samples="independent").gradients(X, 1)
    assert differentiate(apart, samples="independent").gradients(X, 1).output.shape == (4,)
    whole = differentiate(apart, samples="joint").gradients(X, Target(index=(2, 1)))
    expected = np.zeros_like(X)
    expected[2, 1] = 1 - np.tanh(X[2, 1]) ** 2
    np.testing.assert_allclose(whole.gradients["x"], expected, rtol=1e-5)
    with pytest.raises(AnalysisError, match=r"unknown samples='all'\. Fix: give 'joint' or 'independent'"):
        differentiate(apart, samples="all")


GRAPH = """<ir_version: 10, opset_import: ["": 20]> g (float[n,3] x, int64[2,m] e, float[m,1] v) => (float[n,3] y)
  <int64 zero = {0}, int64 one = {1}, int64[1] last = {-1}>
  { t = Tanh(x) a = Gather<axis = 0>(e, zero) b = Gather<axis = 0>(e, one) s = Gather<axis = 0>(t, a)
    p = Mul(s, v) i = Unsqueeze(b, last) y = ScatterND<reduction = "add">(t, i, p) }"""


def test_a_graph_with_weights_of_its_edges():
    """Nodes and edges differ in number; both are attributed."""
    model = load(parser.parse_model(GRAPH))
    e = np.array([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
    v = np.linspace(-1, 1, 5, dtype=np.float32)[:, None]
    feeds, target = {"x": X, "e": e, "v": v}, Target(index=(2, 1))

    def gradients(share):
        x, w = (torch.tensor(a * share, dtype=torch.float64, requires_grad=True) for a in (X, v))
        t = torch.tanh(x)
        y = t.index_add(0, torch.tensor(e[1]), t[e[0]] * w)
        return [g.numpy() for g in torch.autograd.grad(y[2, 1], (x, w))]

    found = differentiate(model).gradients(feeds, target)
    ig = integrated_gradients(model, feeds, target, steps=32)
    points = [gradients((k + 0.5) / 400) for k in range(400)]
    for name, own, exact, along in zip("xv", (X, v), gradients(1.0), zip(*points, strict=True), strict=True):
        assert found.gradients[name].shape == own.shape
        assert _apart(found.gradients[name], exact) <= 1e-5
        assert _apart(ig.attributions[name], np.mean(along, axis=0) * own) <= 1e-4
    assert full_grad(model, feeds, target).completeness.error.max() <= 1e-5


def test_edges_decide_whether_nodes_are_apart():
    """Of the same shapes: loops from a node to itself, and edges between nodes."""
    fn = differentiate(load(parser.parse_model(GRAPH)))
    v = np.ones((5, 1), np.float32)
    loops = np.array([[0, 1, 2, 3, 3]] * 2)
    edges = np.array([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
    for e, rows in ((loops, 4), (edges, 1)):
        target = Target(index=(2, 1)) if rows == 1 else 1
        assert fn.gradients({"x": X, "e": e, "v": v}, target).output.shape == (rows,)


@pytest.mark.parametrize("batch", ["n", "2"])
def test_inputs_joined_along_the_samples_give_each_sample_two_rows(batch):
    rows = "m" if batch == "n" else "4"
    graph = parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> g (float[{batch},3] a, float[{batch},3] b) => (float[{rows},3] y)'
        " { both = Concat<axis = 0>(a, b) y = Tanh(both) }"
    )
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=(2, 3)).astype(np.float32) for name in "ab"}
    # Where the batch is free, sample 1 has row 1 of each input; where the file states it, the call is one sample.
    row, count = (1, 2) if batch == "n" else (3, 1)
    found = gradient(graph, feeds, Target("y", index=(row, 2)))
    expected = {name: np.zeros((2, 3)) for name in "ab"}
    chosen = slice(None) if batch == "n" else 1
    expected["b"][chosen, 2] = 1 - np.tanh(feeds["b"][chosen, 2]) ** 2
    for name in "ab":
        np.testing.assert_allclose(found.attributions[name], expected[name], atol=1e-6)
    assert full_grad(graph, feeds, Target("y", index=(row, 2))).completeness.error.shape == (count,)
    with pytest.raises(TargetError, match=r"two readings|every row"):
        full_grad(graph, feeds, 2)
