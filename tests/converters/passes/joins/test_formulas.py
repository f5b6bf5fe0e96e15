"""A function in primitives becomes the standard's op, whatever its form, and computes the same; nothing else does."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from converters import load
from tests.converters.helpers import ops, run

NUMBERS = (
    "<float one = {1}, float two = {2}, float three = {3}, float six = {6}, float zero = {0},"
    " float sixth = {0.16666667}, float half = {0.5}, float a = {0.044715}, float b = {0.7978846},"
    " float[1,1,1] wide = {0.7978846},"
    " float root = {1.4142135}, float twenty = {20}, float e = {0.001}, float leak = {0.1}, float low = {-1},"
    " float inverse = {-0.5},"
    " float[4] scale = {0.5,2,-1,3}, float[4] shift = {1,-2,0.5,0}, float[3,1] rows = {0.5,2,-1},"
    " int64[1] last = {-1}, int64[1] middle = {1}>"
)
MEAN = "m = ReduceMean(x, last) c = Sub(x, m) q = Mul(c, c) v = ReduceMean(q, last) w = Add(v, e)"

# body: the op that it is.
FUNCTIONS = {
    "p = Pow(x, three) t = Mul(a, p) s = Add(x, t) u = Mul(s, b) h = Tanh(u) i = Add(h, one) k = Mul(i, x)"
    " y = Mul(k, half)": "Gelu",
    "q = Mul(x, x) t = Mul(q, a) s = Add(one, t) r = Mul(s, x) u = Mul(wide, r) h = Tanh(u) i = Add(h, one)"
    " k = Mul(half, x) y = Mul(i, k)": "Gelu",
    "s = Add(x, three) c = Clip(s, zero, six) d = Div(c, six) y = Mul(x, d)": "HardSwish",
    "s = Add(x, three) r = Relu(s) c = Min(r, six) d = Mul(c, x) y = Mul(d, sixth)": "HardSwish",
    "g = HardSigmoid<alpha = 0.16666667, beta = 0.5>(x) y = Mul(g, x)": "HardSwish",
    "s = Add(x, three) c = Clip(s, zero, six) y = Div(c, six)": "HardSigmoid",
    "s = Softplus(x) t = Tanh(s) y = Mul(t, x)": "Mish",
    "s = Softplus(x) g = Greater(x, twenty) y = Where(g, x, s)": "Softplus",
    "n = Neg(x) t = Exp(n) s = Add(t, one) y = Reciprocal(s)": "Sigmoid",
    "n = Abs(x) s = Add(n, one) y = Div(x, s)": "Softsign",
    "h = Max(x, low) y = Min(h, two)": "Clip",
    "l = Mul(x, leak) y = Max(x, l)": "LeakyRelu",
    MEAN + " s = Sqrt(w) y = Div(c, s)": "LayerNormalization",
    MEAN + " s = Sqrt(w) d = Div(c, s) g = Mul(d, scale) y = Add(shift, g)": "LayerNormalization",
    MEAN + " s = Sqrt(w) i = Reciprocal(s) k = Mul(i, scale) l = Mul(x, k) n = Mul(m, k) o = Sub(shift, n)"
    " y = Add(l, o)": "LayerNormalization",
    MEAN + " s = Pow(w, inverse) d = Mul(c, s) y = Mul(d, scale)": "LayerNormalization",
    "l = LayerNormalization<epsilon = 0.001>(x, scale) y = Add(l, shift)": "LayerNormalization",
    "q = Pow(x, two) v = ReduceMean(q, last) w = Add(v, e) s = Sqrt(w) d = Div(x, s) y = Mul(d, scale)": (
        "RMSNormalization"
    ),
    "m = ReduceMax(x, middle) c = Sub(x, m) n = Exp(c) s = ReduceSum(n, middle) y = Div(n, s)": "Softmax",
    "m = ReduceMax(x, last) c = Sub(x, m) n = Exp(c) s = ReduceSum(n, last) l = Log(s) y = Sub(c, l)": "LogSoftmax",
}

# body: how many nodes are left of it. Some hold a function within.
OTHERS = {
    "p = Pow(x, two) t = Mul(a, p) s = Add(x, t) u = Mul(s, b) h = Tanh(u) i = Add(h, one) k = Mul(i, x)"
    " y = Mul(k, half)": 8,
    "s = Softplus(x) t = Tanh(s) y = Add(t, x)": 3,
    "n = Exp(x) p = Mul(n, x) y = Div(p, n)": 3,
    "n = Exp(x) s = Add(n, one) l = Log(s) y = Mul(l, n)": 4,
    MEAN + " s = Sqrt(w) y = Div(x, s)": 7,
    MEAN + " s = Sqrt(w) d = Div(c, s) y = Mul(d, v)": 8,
    "n = Exp(x) s = ReduceSum(n, last) y = Div(x, s)": 3,
    "n = Exp(x) s = ReduceSum(n, last) t = Add(s, one) y = Div(n, t)": 4,
    "s = Add(x, two) c = Clip(s, zero, six) d = Div(c, six) y = Mul(x, d)": 2,
    MEAN + " s = Sqrt(w) d = Div(c, s) y = Add(d, m)": 4,
    MEAN + " s = Sqrt(w) d = Div(c, s) y = Mul(d, rows)": 2,
    "m = ReduceMax(x, last) c = Sub(x, m) n = Exp(c) s = ReduceSum(n, middle) y = Div(n, s)": 5,
    # These compute an op's function less exactly than the op does: 0 or ∞ far from zero, where the op has a value.
    "n = Exp(x) s = Add(n, one) l = Log(s) t = Tanh(l) y = Mul(x, t)": 5,
    "n = Exp(x) s = Add(n, one) y = Log(s)": 3,
    "n = Exp(x) s = ReduceSum(n, last) y = Div(n, s)": 3,
    "l = ReduceLogSumExp(x, last) y = Sub(x, l)": 2,
}


def network(body: str):
    text = f'<ir_version: 10, opset_import: ["": 23]> g (float[n,3,4] x) => (float[n,3,4] y) {NUMBERS} {{ {body} }}'
    return parser.parse_model(text)


def differences(body: str) -> float:
    x = 3 * np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    proto = network(body)
    return float(np.abs(run(load(proto).proto, {"x": x})[0] - run(proto, {"x": x})[0]).max())


@pytest.mark.parametrize("body", FUNCTIONS)
def test_a_function_in_primitives_is_one_op(body: str) -> None:
    found = ops(load(network(body)).proto)
    found.pop("Transpose", None)
    assert found == {FUNCTIONS[body]: 1}
    assert differences(body) <= 2e-6


@pytest.mark.parametrize("body", OTHERS)
def test_what_is_another_function_stays(body: str) -> None:
    assert len(load(network(body)).proto.graph.node) == OTHERS[body]
    assert differences(body) <= 1e-6


HARD = "s{1} = Add({0}, three) c{1} = Clip(s{1}, zero, six) {1} = Div(c{1}, six)"
GELU = "d = Div(x, root) f = Erf(d) i = Add(f, one) k = Mul(i, x) g = Mul(k, half)"

# body: the two ops that it is, one after the other.
CHAINS = {
    f"{HARD.format('x', 'g')} {HARD.format('g', 'y')}": ("HardSigmoid", "HardSigmoid"),
    f"{GELU} {HARD.format('g', 'y')}": ("Gelu", "HardSigmoid"),
    f"{HARD.format('x', 'h')} g = Mul(x, h) {HARD.format('g', 'y')}": ("HardSwish", "HardSigmoid"),
}


@pytest.mark.parametrize("body", CHAINS)
def test_an_activation_keeps_the_constant_that_it_ends_with(body: str) -> None:
    assert differences(body) <= 1e-5
    nodes = load(network(body)).proto.graph.node
    assert tuple(node.op_type for node in nodes) == CHAINS[body]
    # What each of them is: bounds and slopes are those of the standard's ops.
    slopes = [attribute.f for node in nodes for attribute in node.attribute if attribute.name == "alpha"]
    np.testing.assert_allclose(slopes, [1 / 6] * len(slopes), rtol=1e-5)


def test_a_scale_before_a_hard_sigmoid_is_a_part_of_it() -> None:
    (node,) = load(network(f"g = Mul(x, half) {HARD.format('g', 'y')}")).proto.graph.node
    assert node.op_type == "HardSigmoid"
    assert next(a.f for a in node.attribute if a.name == "alpha") == pytest.approx(1 / 12)


def test_moves_between_the_primitives_come_after_the_function() -> None:
    # As TensorFlow's layouts leave them: the same Transpose on both ways to the product.
    body = (
        "t = Transpose<perm = [0,2,1]>(x) s = Add(x, three) c = Clip(s, zero, six) u = Transpose<perm = [0,2,1]>(c)"
        " d = Div(u, six) z = Mul(t, d) y = Transpose<perm = [0,2,1]>(z)"
    )
    assert ops(load(network(body)).proto) == {"HardSwish": 1}
    assert differences(body) <= 1e-6


def test_elements_that_were_moved_in_different_ways_are_no_function_of_one() -> None:
    body = "r = Transpose<perm = [0,2,1]>(x) g = Sigmoid(r) y = Mul(x, g)"
    text = f'<ir_version: 10, opset_import: ["": 23]> g (float[n,4,4] x) => (float[n,4,4] y) {{ {body} }}'
    assert ops(load(parser.parse_model(text)).proto) == {"Transpose": 1, "Sigmoid": 1, "Mul": 1}
