"""Loops whose number of steps the data decide: every backend's gradient against float64 differences."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnxruntime
import pytest

from analyzer import differentiate, export_explainer, full_grad, integrated_gradients
from analyzer.errors import UnsupportedOp
from converters import load

RNG = np.random.default_rng(0)
W = (RNG.normal(size=(4, 4)) * 0.6).astype(np.float32)
Function = Callable[[np.ndarray], np.ndarray]


def model(body: str) -> onnx.ModelProto:
    """A model of the text of a body; w (4 × 4) is a constant, h = tanh(x), s its sum."""
    numbers = ", ".join(repr(float(one)) for one in W.reshape(-1))
    text = (
        '<ir_version: 9, opset_import: ["": 18]> g (float[1, 4] x) => (float[1, 4] y) '
        f"<float[4, 4] w = {{{numbers}}}, float limit = {{40}}, float grow = {{1.5}}, float zero = {{0}}, "
        f"bool yes = {{1}}, int64 most = {{20}}> {{ h = Tanh(x) s = ReduceSum<keepdims = 0>(h) {body} }}"
    )
    return onnx.parser.parse_model(text)


def _grown(x: np.ndarray) -> np.ndarray:
    state, total = np.tanh(x), np.zeros_like(x)
    for step in range(20):
        total = total + np.sin(state) * step
        state = 1.5 * state + np.tanh(state @ W) + x
        if not (state**2).sum() < 40:
            break
    return state + total


def _counted(x: np.ndarray) -> np.ndarray:
    state, h = x, np.tanh(x)
    for _ in range(int(np.floor(np.abs(h).sum() * 2))):
        state = np.sin(state) * h + state
    return state * h


def _branching(x: np.ndarray) -> np.ndarray:
    h = np.tanh(x)
    state = h
    for step in range(int(np.floor(np.abs(h).sum() + 1))):
        state = state * h if state.sum() > 0 else np.exp(state) - x * step
    return state


CASES: dict[str, tuple[str, Function]] = {
    "until a condition, with an output of each step": (
        """z, steps = Loop(most, yes, h) <body = b (int64 i, bool go, float[A, B] p)
            => (bool go2, float[A, B] p2, float[A, B] k) {
            m = MatMul(p, w) t = Tanh(m) u = Mul(p, grow) v = Add(u, t) p2 = Add(v, x)
            q = ReduceSumSquare<keepdims = 0>(p2) go2 = Less(q, limit) f = Cast<to = 1>(i) r = Sin(p) k = Mul(r, f) }>
        ax = Constant<value_ints = [0]>() total = ReduceSum<keepdims = 0>(steps, ax) y = Add(z, total)""",
        _grown,
    ),
    "a count, that may be 0": (
        """a = Abs(h) n = ReduceSum<keepdims = 0>(a) n2 = Add(n, n) count = Cast<to = 7>(n2)
        z = Loop(count, yes, x) <body = b (int64 i, bool go, float[A, B] p) => (bool go2, float[A, B] p2) {
            go2 = Identity(go) r = Sin(p) t = Mul(r, h) p2 = Add(t, p) }>
        y = Mul(z, h)""",
        _counted,
    ),
    "a branch within": (
        """a = Abs(h) n = ReduceSum<keepdims = 0>(a) one = Constant<value_float = 1.0>() n2 = Add(n, one)
        count = Cast<to = 7>(n2)
        y = Loop(count, yes, h) <body = b (int64 i, bool go, float[A, B] p) => (bool go2, float[A, B] p2) {
            go2 = Identity(go) e = ReduceSum<keepdims = 0>(p) c = Greater(e, zero) f = Cast<to = 1>(i)
            p2 = If(c) <then_branch = c1 () => (float[A, B] q) { q = Mul(p, h) },
                else_branch = d1 () => (float[A, B] q) { l = Exp(p) d = Mul(x, f) q = Sub(l, d) }> }>""",
        _branching,
    ),
}


def points() -> list[np.ndarray]:
    """Points with different numbers of steps."""
    row = RNG.normal(size=(1, 4))
    return [(row * scale).astype(np.float32) for scale in (0.05, 0.4, 1.0, -1.5)]


@pytest.mark.parametrize("name", CASES)
def test_a_loop_is_differentiated_on_every_backend(name: str):
    body, function = CASES[name]
    converted = load(model(body))
    assert any(node.op_type == "Loop" for node in converted.proto.graph.node)
    bound = [differentiate(converted, backend=one) for one in ("onnxruntime", "torch")]
    for x in points():
        direction, step = RNG.normal(size=x.shape), 1e-6
        ends = [function(x.astype(np.float64) + sign * step * direction)[0, 2] for sign in (1, -1)]
        expected = (ends[0] - ends[1]) / (2 * step)
        for fn in bound:
            found = fn.gradients(x, target=2)
            assert found.output[0] == pytest.approx(function(x.astype(np.float64))[0, 2], rel=1e-5, abs=1e-6)
            assert (found.gradients["x"] * direction).sum() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_an_explainer_file_loops_as_python_does(tmp_path: Path):
    body, _ = CASES["a count, that may be 0"]
    converted, path = load(model(body)), str(tmp_path / "explainer.onnx")
    export_explainer(converted, path, method="integrated-gradients")
    session, fn = onnxruntime.InferenceSession(path), differentiate(converted)
    for x in points():
        found = session.run(["attribution"], {"x": x, "target": np.asarray([2])})[0]
        expected = integrated_gradients(fn, x, target=2).attributions
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_full_grad_refuses_a_loop():
    fn = differentiate(load(model(CASES["a branch within"][0])))
    with pytest.raises(UnsupportedOp, match="FullGrad has no term of a loop"):
        full_grad(fn, points()[1], target=2)
