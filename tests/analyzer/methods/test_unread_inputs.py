"""Models with inputs that the explained output does not depend on, and inputs without axes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import pytest
from onnx import helper

from analyzer import Target, check, compare, differentiate, full_grad
from tests.converters.helpers import make_model, normal

node = helper.make_node

TABLE, HEAD = normal(9, 4), normal(4, 3)


def tokens_and_lengths() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Logits of the mean of embedded tokens; the lengths are handed on alone."""
    nodes = [
        node("Gather", ["table", "tokens"], ["embedded"]),
        node("ReduceMean", ["embedded", "one"], ["mean"], keepdims=0),
        node("MatMul", ["mean", "head"], ["logits"]),
        node("Cast", ["lengths"], ["lengths_out"], to=1),
    ]
    model = make_model(
        nodes,
        {"tokens": ("n", "steps"), "lengths": ("n",)},
        ["logits", "lengths_out"],
        {"table": TABLE, "head": HEAD, "one": np.array([1])},
        integers=["tokens", "lengths"],
    )
    return model, {"tokens": np.array([[1, 2, 3], [4, 4, 0]]), "lengths": np.array([3, 2])}


def two_heads() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Two outputs, each of an input alone."""
    nodes = [
        node("MatMul", ["a", "head"], ["p"]),
        node("Relu", ["p"], ["first"]),
        node("MatMul", ["b", "head"], ["second"]),
    ]
    model = make_model(nodes, {"a": ("n", 4), "b": ("n", 4)}, ["first", "second"], {"head": HEAD})
    return model, {"a": normal(2, 4), "b": normal(2, 4)}


def scaled() -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """tanh(x W) · t for a temperature t without axes."""
    nodes = [node("MatMul", ["x", "head"], ["p"]), node("Tanh", ["p"], ["h"]), node("Mul", ["h", "t"], ["y"])]
    model = make_model(nodes, {"x": ("n", 4), "t": ()}, ["y"], {"head": HEAD})
    return model, {"x": normal(2, 4), "t": np.array(0.7, np.float32)}


@pytest.mark.parametrize("name", ["embedding", ["embedding"], ["embedded"]])
def test_full_grad_of_embedded_tokens_beside_lengths_that_nothing_reads(name: str | list[str]) -> None:
    model, feeds = tokens_and_lengths()
    fn = differentiate(model)
    found = full_grad(fn, feeds, target=1, wrt=name)
    # The output is linear in the vectors: ⟨vectors, W_1 / steps⟩ is all of it.
    vectors = TABLE[feeds["tokens"]]
    np.testing.assert_allclose(found.input_term["embedded"], vectors * HEAD[:, 1] / 3, rtol=1e-5, atol=1e-7)
    assert found.completeness.error.max() < 1e-6
    np.testing.assert_allclose(
        fn.gradients(feeds, 1, name).gradients["embedded"],
        np.broadcast_to(HEAD[:, 1] / 3, vectors.shape),
        rtol=1e-5,
    )
    report = check(model, feeds, wrt=name, backends=["onnxruntime", "torch"])
    assert report.passed


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
@pytest.mark.parametrize("wrt", [None, ["a"], ["b"]])
@pytest.mark.parametrize("output", ["first", "second"])
def test_two_heads_are_explained_from_either_input(backend: str, wrt: list[str] | None, output: str) -> None:
    model, feeds = two_heads()
    fn = differentiate(model, backend)
    target = Target(output, index=2)
    found = full_grad(fn, feeds, target, wrt=wrt)
    mine, other = ("a", "b") if output == "first" else ("b", "a")
    terms = dict(found.input_term) if isinstance(found.input_term, Mapping) else {}
    column = feeds[mine] @ HEAD[:, 2]
    active = column > 0 if output == "first" else np.ones(2, bool)
    if mine in terms:
        expected = feeds[mine] * HEAD[:, 2] * active[:, None]
        np.testing.assert_allclose(terms[mine], expected, rtol=1e-5, atol=1e-7)
        assert found.completeness.error.max() < 1e-6
    if other in terms:
        assert not terms[other].any()


def test_an_input_without_axes_has_a_gradient_and_a_term() -> None:
    model, feeds = scaled()
    x, t = feeds["x"].astype(np.float64), float(feeds["t"])
    h = np.tanh(x @ HEAD[:, 1])
    for backend in ("onnxruntime", "torch"):
        fn = differentiate(model, backend)
        found = fn.gradients(feeds, 1).gradients
        np.testing.assert_allclose(found["x"], t * (1 - h**2)[:, None] * HEAD[:, 1], rtol=1e-4)
        # One temperature for all samples: its gradient is that of the sum of their outputs.
        np.testing.assert_allclose(found["t"], h.sum(), rtol=1e-5)
    one = {"x": feeds["x"][:1], "t": feeds["t"]}
    full = full_grad(fn, one, 1)
    assert full.completeness.error.max() < 1e-6
    assert check(model, one, 1, backends=["onnxruntime", "torch"]).passed
    assert compare(model, model, one, 1, backend="onnxruntime").passed
