"""Gradients that are zero because a step lies on every path are refused; those that are zero rightly are given."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from analyzer import check, differentiate, full_grad, integrated_gradients
from analyzer.autodiff.coverage import coverage, differentiable_path
from analyzer.autodiff.sweep import path_nodes
from analyzer.errors import UnsupportedOp

X = np.array([[0.3, -1.2, 2.0], [1.0, 0.4, -0.7]], np.float32)
IDS = np.array([[0, 2, 1], [1, 1, 3]], np.float32)


def model(body, outputs="float[n,2] y", inputs="float[n,3] x"):
    constants = (
        "float[3,2] w = {1, 2, -1, 0.5, 3, 1}, float[4,2] table = {1, 2, 3, 4, 5, 6, 7, 8}, float zero = {0}, "
        "float wide = {0.85}, float two = {2}, float little = {1e-3}"
    )
    head = '<ir_version: 10, opset_import: ["": 23]>'
    return parser.parse_model(f"{head} g ({inputs}) => ({outputs}) <{constants}> {{ {body} }}")


STEPS = {
    "Greater": "c = Greater(x, zero) f = Cast<to = 1>(c) y = MatMul(f, w)",
    "Floor": "h = Mul(x, x) f = Floor(h) y = MatMul(f, w)",
    "Round": "f = Round(x) y = MatMul(f, w)",
    "Sign": "f = Sign(x) y = MatMul(f, w)",
    "Cast": "c = Cast<to = 7>(x) f = Cast<to = 1>(c) y = MatMul(f, w)",
    "ArgMax": "i = ArgMax<axis = 1, keepdims = 0>(x) f = Gather<axis = 0>(table, i) y = Mul(f, f)",
    "Hardmax": "f = Hardmax(x) y = MatMul(f, w)",
}


@pytest.mark.parametrize("op", STEPS)
def test_a_target_behind_a_step_is_refused_with_the_tensor_after_it(op):
    proto = model(STEPS[op])
    fn = differentiate(proto)
    for explain in (fn.gradients, lambda x: full_grad(fn, x), lambda x: integrated_gradients(fn, x)):
        with pytest.raises(UnsupportedOp, match=rf"'x'.*\({op}\).*derivative is zero.*wrt=\['f'\]"):
            explain(X)
    after = fn.gradients(X, 1, wrt=["f"]).gradients["f"]
    assert np.abs(after).max() > 0
    assert not path_nodes(fn.graph, ["x"], ("y",))
    path = differentiable_path(fn.graph)
    assert [node.op_type for node in path.ends] == [op] and not path.nodes
    assert all(found.total == 0 for found in coverage(fn.graph, path).values())


def test_float_token_ids_name_the_embedding():
    fn = differentiate(
        model(
            "i = Cast<to = 7>(x) e = Gather<axis = 0>(table, i) y = ReduceMean<keepdims = 0>(e, axes)".replace(
                ", axes", ", one"
            ).replace("y = Reduce", "one = Constant<value_ints = [1]>() y = Reduce")
        )
    )
    with pytest.raises(UnsupportedOp, match=r"\(Cast\).*wrt=\['e'\]"):
        fn.gradients(IDS)
    np.testing.assert_allclose(fn.gradients(IDS, 0, wrt="e").gradients["e"][..., 0], 1 / 3, rtol=1e-6)


GATED = "c = Greater(m, zero) g = Cast<to = 1>(c) h = Mul(x, g) y = MatMul(h, w)"
PAIR = "float[n,3] x, float[n,3] m"


def test_an_input_without_a_path_is_named_where_another_has_one():
    fn = differentiate(model(GATED, inputs=PAIR))
    feeds = {"x": X, "m": X}
    with pytest.warns(UserWarning, match=r"'m' says nothing.*\(Greater\)"):
        found = fn.gradients(feeds, 0)
    np.testing.assert_allclose(found.gradients["x"], (X > 0) * np.float32([1, -1, 3]))
    with pytest.raises(UnsupportedOp, match=r"'m' says nothing.*\(Greater\)"):
        fn.gradients(feeds, 0, wrt=["x", "m"])


@pytest.mark.parametrize(
    "body",
    [
        "y = MatMul(x, w)",
        "s = Shape(m) z = ConstantOfShape(s) h = Add(x, z) y = MatMul(h, w)",
        "a = Relu(x) c = Greater(x, zero) g = Cast<to = 1>(c) h = Mul(a, g) y = MatMul(h, w)",
    ],
)
def test_an_input_that_changes_nothing_has_the_gradient_0(body, recwarn):
    fn = differentiate(model(body, inputs=PAIR))
    found = fn.gradients({"x": X, "m": X}, 0, wrt=["x", "m"])
    assert not found.gradients["m"].any() and found.gradients["x"].any()
    assert not [w for w in recwarn if "says nothing" in str(w.message)]


def test_check_refuses_a_target_behind_a_step():
    with pytest.raises(UnsupportedOp, match=r"\(Greater\)"):
        check(model(STEPS["Greater"]), X, target=0, backends=["onnxruntime", "torch"])


CANCELLED = {
    "straight through": "r = Round(x) d = Sub(r, x) h = Add(x, d) y = MatMul(h, w)",
    "other order": "r = Floor(x) m = Neg(x) d = Add(m, r) i = Identity(d) h = Add(i, x) y = MatMul(h, w)",
    "in the middle": "t = Tanh(x) s = Mul(t, t) r = Sign(s) d = Sub(r, s) h = Sum(s, d) q = Mul(h, h) y = MatMul(q, w)",
    "a remainder": "r = Mod<fmod = 1>(x, wide) h = Sub(x, r) y = MatMul(h, w)",
    "twice the input, twice": (
        "r = Round(x) a = Mul(x, two) b = Mul(two, x) d = Add(a, r) h = Sub(d, b) y = MatMul(h, w)"
    ),
    "nothing of the input": "r = Round(x) a = Mul(x, zero) h = Add(a, r) y = MatMul(h, w)",
    "the same op again": "r = Ceil(x) a = Tanh(x) b = Tanh(x) d = Sub(r, b) h = Add(a, d) y = MatMul(h, w)",
}
KEPT = {
    "a remainder alone": "r = Mod<fmod = 1>(x, wide) y = MatMul(r, w)",
    "half of it": "r = Round(x) a = Div(x, two) d = Sub(r, a) h = Add(x, d) y = MatMul(h, w)",
    "a little of it": "r = Round(x) t = Tanh(x) a = Mul(x, little) h = Add(a, r) y = MatMul(h, w)",
    "twice the input": "r = Round(x) d = Sub(r, x) a = Add(x, x) h = Add(a, d) y = MatMul(h, w)",
    "another tensor": "r = Round(x) t = Tanh(x) d = Sub(r, t) h = Add(x, d) y = MatMul(h, w)",
    "a step aside": "r = Round(x) h = Add(x, r) y = MatMul(h, w)",
}


@pytest.mark.parametrize("name", CANCELLED)
def test_a_sum_that_takes_away_all_but_a_step_is_refused(name):
    fn = differentiate(model(CANCELLED[name]))
    for explain in (fn.gradients, lambda x: full_grad(fn, x), lambda x: integrated_gradients(fn, x)):
        with pytest.raises(
            UnsupportedOp, match=r"'x'.*does not cancel.*'y'.*derivative is zero.*wrt=\['r'\]"
        ):
            explain(X)


@pytest.mark.parametrize("name", KEPT)
def test_a_sum_that_leaves_a_derivative_is_differentiated(name):
    fn = differentiate(model(KEPT[name]))
    g, step = fn.gradients(X, 1).gradients["x"], 1e-2 * np.sign(X - np.round(X) + 0.01)
    # No element is rounded elsewhere within this step.
    ahead, behind = (fn.forward((X + sign * step).astype(np.float32))["y"][:, 1] for sign in (1, -1))
    np.testing.assert_allclose((ahead - behind) / 2, (g * step).sum(1), rtol=2e-3, atol=1e-5)


def test_a_difference_without_a_step_has_the_gradient_zero():
    fn = differentiate(model("d = Sub(x, x) y = MatMul(d, w)"))
    assert not fn.gradients(X, 1).gradients["x"].any()
