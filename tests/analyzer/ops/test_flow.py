"""Branches that the data decide: every backend's gradient and residual against float64 differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest
import torch

from analyzer import (
    Target,
    differentiate,
    export_explainer,
    full_grad,
    gradient,
    integrated_gradients,
)
from analyzer.autodiff.coverage import coverage, differentiable_path
from analyzer.errors import AnalysisError, UnsupportedOp
from analyzer.graph.graph import Graph
from analyzer.ops import registry
from converters import convert, load

RNG = np.random.default_rng(0)
W, V = (RNG.normal(size=(4, 4)).astype(np.float32) for _ in range(2))
C = RNG.normal(size=4).astype(np.float32)


def model(body: str, inputs: str = "float[N, 4] x", output: str = "float[N, 4] y") -> onnx.ModelProto:
    """A model of the text of a body; w, v (4 × 4) and c (4) are constants, s is the sum of h = tanh(x)."""

    def numbers(array: np.ndarray) -> str:
        return ", ".join(repr(float(one)) for one in array.reshape(-1))

    text = (
        f'<ir_version: 9, opset_import: ["": 18]> g ({inputs}) => ({output}) <float[4, 4] w = {{{numbers(W)}}}, '
        f"float[4, 4] v = {{{numbers(V)}}}, float[4] c = {{{numbers(C)}}}, float zero = {{0}}, float half = {{0.5}}, "
        f"float two = {{2}}> {{ h = Tanh(x) s = ReduceSum<keepdims=0>(h) positive = Greater(s, zero) {body} }}"
    )
    return onnx.parser.parse_model(text)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


Function = Callable[[np.ndarray], np.ndarray]


def _layers(x: np.ndarray) -> np.ndarray:
    h = np.tanh(x)
    return np.exp(np.tanh(h @ W + 0.5) * h) if h.sum() > 0 else np.exp(sigmoid(h @ V + C) * (h @ V))


def _handed_on(x: np.ndarray) -> np.ndarray:
    h = np.tanh(x)
    return h * x if h.sum() > 0 else np.exp(h) * x


def _nested(x: np.ndarray) -> np.ndarray:
    h = np.tanh(x)
    if h.sum() > 0:
        return np.log(h * h + 0.5) * h if h.sum() > 2 else sigmoid(h) * h
    return np.exp(h @ W)


def _several(x: np.ndarray) -> np.ndarray:
    h = np.tanh(x)
    a, b, k = (h @ W, np.sin(h), 2) if h.sum() > 0 else (h @ V, h * h, 0)
    return a * b + np.roll(h, 0, axis=1)[:, [k]]


def _sliced(x: np.ndarray) -> np.ndarray:
    h = np.tanh(x)
    part = h[:, :2] ** 2 if h.sum() > 0 else np.exp(h[:, :3])
    return part.sum(1, keepdims=True) * x


def _outside(x: np.ndarray) -> np.ndarray:
    h = np.tanh(x)
    return h * C if h.sum() > 0 else np.broadcast_to(C, h.shape) * 1.0


CASES: dict[str, tuple[str, Function]] = {
    "layers": (
        """z = If(positive) <
            then_branch = a () => (float[N, 4] t) { m = MatMul(h, w) k = Constant<value_float = 0.5>()
                n = Add(m, k) q = Tanh(n) t = Mul(q, h) },
            else_branch = b () => (float[N, 4] t) { m = MatMul(h, v) n = Add(m, c) q = Sigmoid(n) t = Mul(q, m) }>
        y = Exp(z)""",
        _layers,
    ),
    "a tensor that is handed on": (
        """z = If(positive) <then_branch = a () => (float[N, 4] t) { t = Identity(h) },
            else_branch = b () => (float[N, 4] t) { t = Exp(h) }>
        y = Mul(z, x)""",
        _handed_on,
    ),
    "nested": (
        """y = If(positive) <
            then_branch = a () => (float[N, 4] t) { more = Greater(s, two) t = If(more) <
                then_branch = c1 () => (float[N, 4] q) { sq = Mul(h, h) p = Add(sq, half) l = Log(p) q = Mul(l, h) },
                else_branch = d1 () => (float[N, 4] q) { g0 = Sigmoid(h) q = Mul(g0, h) }> },
            else_branch = b () => (float[N, 4] t) { m = MatMul(h, w) t = Exp(m) }>""",
        _nested,
    ),
    "several outputs, one of them whole numbers": (
        """a, b, k = If(positive) <
            then_branch = e () => (float[N, 4] p, float[N, 4] q, int64[1] r) {
                p = MatMul(h, w) q = Sin(h) r = Constant<value_ints = [2]>() },
            else_branch = f () => (float[N, 4] p, float[N, 4] q, int64[1] r) {
                p = MatMul(h, v) q = Mul(h, h) r = Constant<value_ints = [0]>() }>
        col = Gather<axis = 1>(h, k) ab = Mul(a, b) y = Add(ab, col)""",
        _several,
    ),
    "shapes that differ": (
        """z = If(positive) <
            then_branch = a () => (float[N, K] t) { lo = Constant<value_ints = [0]>() hi = Constant<value_ints = [2]>()
                ax = Constant<value_ints = [1]>() p = Slice(h, lo, hi, ax) t = Mul(p, p) },
            else_branch = b () => (float[N, K] t) { lo = Constant<value_ints = [0]>() hi = Constant<value_ints = [3]>()
                ax = Constant<value_ints = [1]>() p = Slice(h, lo, hi, ax) t = Exp(p) }>
        one = Constant<value_ints = [1]>() r = ReduceSum<keepdims = 1>(z, one) y = Mul(r, x)""",
        _sliced,
    ),
    "a branch without the input": (
        """y = If(positive) <then_branch = a () => (float[N, 4] t) { t = Mul(h, c) },
            else_branch = b () => (float[N, 4] t) { shape = Shape(h) t = Expand(c, shape) }>""",
        _outside,
    ),
}


VARYING = "shapes that differ"


def points() -> list[np.ndarray]:
    """One sample on each side of the conditions, and one far on the first."""
    rows = RNG.normal(size=(3, 1, 4)) * 0.3
    return [(row + shift).astype(np.float32) for row, shift in zip(rows, (0.4, -0.4, 1.2), strict=True)]


@pytest.mark.parametrize("name", CASES)
def test_the_branch_that_is_taken_is_differentiated_on_every_backend(name: str):
    body, function = CASES[name]
    converted = load(model(body))
    assert any(node.op_type == "If" for node in converted.proto.graph.node)
    bound = [differentiate(converted, backend=one) for one in ("onnxruntime", "torch")]
    for x in points():
        direction, step = RNG.normal(size=x.shape), 1e-6
        ends = [function(x.astype(np.float64) + sign * step * direction)[0, 2] for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / (2 * step)
        for fn in bound:
            found = fn.gradients(x, target=2)
            assert found.output[0] == pytest.approx(function(x.astype(np.float64))[0, 2], rel=1e-5, abs=1e-6)
            assert (found.gradients["x"] * direction).sum() == pytest.approx(expected, rel=1e-4, abs=1e-5)
            if name == VARYING:
                with pytest.raises(AnalysisError, match="the size of 'z' depends on the values"):
                    full_grad(fn, x, target=2)
                continue
            assert np.abs(full_grad(fn, x, target=2).completeness.error).max() < 1e-5


def test_float64_is_exact_on_every_branch():
    for name, (body, function) in CASES.items():
        if name == VARYING:
            continue
        fn = differentiate(load(model(body)), backend="torch", precision="float64")
        for x in points():
            explained = full_grad(fn, x, target=2)
            assert np.abs(explained.completeness.error).max() < 1e-10
            assert explained.output[0] == pytest.approx(function(x.astype(np.float64))[0, 2], rel=1e-10)


def test_the_term_of_a_branch_is_its_distance_from_its_tangent():
    body, _ = CASES["layers"]
    fn = differentiate(load(model(body)))
    for x in points():
        found = fn.gradients(x, target=2, wrt=["z"])
        terms = full_grad(fn, x, target=2).bias_terms["z"]
        h, step = np.tanh(x.astype(np.float64)), 1e-6
        z = [np.log(_layers(np.arctanh(h * scale))) for scale in (1, 1 + step, 1 - step)]
        # The derivative along h itself is J h.
        residual = z[0] - (z[1] - z[2]) / (2 * step)
        np.testing.assert_allclose(terms, found.gradients["z"] * residual, rtol=1e-3, atol=1e-6)


def test_at_the_edge_of_the_condition_the_branch_that_is_taken_counts():
    body = """y = If(positive) <then_branch = a () => (float[N, 4] t) { t = Mul(h, two) },
        else_branch = b () => (float[N, 4] t) { t = Neg(h) }>"""
    x = np.zeros((1, 4), np.float32)
    for backend in ("onnxruntime", "torch"):
        # The sum is 0, which is not above 0.
        found = differentiate(load(model(body)), backend=backend).gradients(x, target=1)
        np.testing.assert_array_equal(found.gradients["x"], [[0, -1, 0, 0]])


def test_samples_are_explained_as_the_file_computes_them():
    body, function = CASES["layers"]
    fn, rows = differentiate(load(model(body))), RNG.normal(size=(3, 4)) * 0.1
    alike = (rows + 0.5).astype(np.float32)
    for method in (gradient, full_grad, integrated_gradients):
        found = method(fn, alike, target=2)
        alone = [method(fn, row[None], target=2) for row in alike]
        np.testing.assert_allclose(
            found.attributions, np.concatenate([one.attributions for one in alone]), rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(found.output, function(alike.astype(np.float64))[:, 2], rtol=1e-5)

    # One condition chooses for all: the second sample would take the other branch by itself.
    mixed = (rows + np.asarray([[0.5], [-0.4], [0.9]])).astype(np.float32)
    with pytest.raises(AnalysisError, match="one number of the whole call"):
        gradient(fn, mixed, target=2)
    weights = np.zeros((3, 4), np.float32)
    weights[1, 2] = 1
    found = gradient(fn, mixed, target=Target(weights=weights))
    assert found.output[0] == pytest.approx(function(mixed.astype(np.float64))[1, 2], rel=1e-5)


def test_the_points_of_a_path_choose_their_own_branches():
    body, function = CASES["layers"]
    x, fn = points()[0], differentiate(load(model(body)))
    steps = 64
    found = integrated_gradients(fn, x, target=2, baseline=-0.2, steps=steps, rule="midpoint")
    line = x.astype(np.float64) + 0.2
    total = np.zeros_like(line)
    for k in range(steps):
        at, step = -0.2 + (k + 0.5) / steps * line, 1e-6
        for axis in range(4):
            unit = np.eye(4)[axis] * step
            total[0, axis] += (function(at + unit) - function(at - unit))[0, 2] / (2 * step) / steps
    np.testing.assert_allclose(found.attributions, total * line, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rows", ["N", "1"])
def test_an_explainer_file_branches_as_python_does(rows: str, tmp_path: Path):
    body, _ = CASES["nested"]
    converted = load(model(body, f"float[{rows}, 4] x", f"float[{rows}, 4] y"))
    fn, path = differentiate(converted), str(tmp_path / "explainer.onnx")
    for name, method in (("full-grad", full_grad), ("integrated-gradients", integrated_gradients)):
        export_explainer(converted, path, method=name)
        session = onnxruntime.InferenceSession(path)
        for x in points():
            found = session.run(["attribution"], {"x": x, "target": np.asarray([2])})[0]
            np.testing.assert_allclose(found, method(fn, x, target=2).attributions, rtol=1e-4, atol=1e-6)


class _Chooses(torch.nn.Module):
    """Branches on its input, by torch.cond."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = torch.nn.Conv2d(2, 3, 3), torch.nn.Conv2d(2, 3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(x)
        return torch.cond(h.mean() > 0, self.positive, self.negative, (h,))

    def positive(self, h: torch.Tensor) -> torch.Tensor:
        return torch.exp(self.a(h)).flatten(1)

    def negative(self, h: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(self.b(h)).flatten(1)


def test_torch_cond_has_the_gradient_of_autograd():
    torch.manual_seed(0)
    # torch.cond compiles itself. After compilations at other sizes, it takes all sizes for free, and fails by itself.
    torch._dynamo.reset()
    net = _Chooses()
    converted = convert(net, torch.randn(1, 2, 5, 5), batches=0)
    assert [node.op_type for node in converted.proto.graph.node].count("If") == 1
    for shift in (0.3, -0.3):
        x = (torch.randn(1, 2, 5, 5) * 0.5 + shift).requires_grad_()
        (net.positive if shift > 0 else net.negative)(torch.tanh(x))[0, 4].backward()
        for backend in ("onnxruntime", "torch", "source"):
            found = differentiate(converted, backend=backend).gradients(x.detach().numpy(), target=4)
            np.testing.assert_allclose(found.gradients["x"], x.grad, rtol=1e-4, atol=1e-6)


def test_an_op_without_a_rule_in_a_branch_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(registry._REGISTRY, ("", "Sin"))
    body = """y = If(positive) <then_branch = a () => (float[N, 4] t) { t = Sin(h) },
        else_branch = b () => (float[N, 4] t) { t = Neg(h) }>"""
    converted = load(model(body))
    with pytest.raises(UnsupportedOp, match=r"'y/then_branch/t/node' \(Sin\)"):
        differentiate(converted).gradients(points()[0], target=1)
    graph = Graph.from_proto(converted.proto)
    found = coverage(graph, differentiable_path(graph))
    for backend in ("onnxruntime", "torch"):
        (blocker,) = found[backend].blockers
        assert blocker.node.op_type == "If"
        assert "Sin" in blocker.reason
