"""Branches that the data decide: every backend's gradient and residual against float64 differences."""

from __future__ import annotations

import warnings
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
    check,
    differentiate,
    export_explainer,
    full_grad,
    gradient,
    integrated_gradients,
)
from analyzer.errors import UnsupportedOp
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
            explained = full_grad(fn, x, target=2)
            assert np.abs(explained.completeness.error).max() < 1e-5, explained.bias_terms
