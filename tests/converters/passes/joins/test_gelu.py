"""A GELU in primitives, however its factors are ordered, is one Gelu; what is none stays as it is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import parser

from analyzer import differentiate
from converters import load

CONSTANTS = (
    f"<float root = {{{math.sqrt(2)}}}, float inverse = {{{math.sqrt(0.5)}}}, float one = {{1}}, float half = {{0.5}},"
    " float two = {2}, float[1] ones = {1}>"
)


def canonical(body: str):
    text = f'<ir_version: 10, opset_import: ["": 23]> g (float[n,3] x) => (float[n,3] y) {CONSTANTS} {{ {body} }}'
    return load(parser.parse_model(text))


@pytest.mark.parametrize(
    "body",
    [
        "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
        "d = Mul(inverse, x) e = Erf(d) a = Add(ones, e) m = Mul(half, a) y = Mul(m, x)",
        "h = Mul(half, x) d = Div(x, root) e = Erf(d) a = Add(e, one) y = Mul(h, a)",
    ],
)
def test_every_order_of_the_factors_is_one_gelu(body):
    model = canonical(body)
    assert [node.op_type for node in model.proto.graph.node] == ["Gelu"]
    x = np.linspace(-3, 3, 6, dtype=np.float32).reshape(2, 3)
    expected = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel().tolist()]
    np.testing.assert_allclose(differentiate(model).forward(x)["y"].ravel(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        "d = Div(x, two) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, half)",
        "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) y = Mul(m, two)",
        "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(x, a) n = Mul(m, half) y = Add(n, e)",
        "d = Div(x, root) e = Erf(d) a = Add(e, one) m = Mul(d, a) y = Mul(m, half)",
        "d = Div(x, root) e = Erf(d) a = Sub(e, one) m = Mul(x, a) y = Mul(m, half)",
        "d = Div(x, root) y = Erf(d)",
        "d = Div(x, root) e = Erf(d) a = Add(e, one) y = Mul(x, a)",
    ],
)
def test_what_is_no_gelu_stays(body):
    model = canonical(body)
    assert "Gelu" not in {node.op_type for node in model.proto.graph.node}
    assert len(model.proto.graph.node) == body.count("=")


def test_a_token_that_is_expanded_to_the_batch_has_the_batch_for_its_shape():
    # TorchScript asks of every size whether it is −1: a size of the batch never is.
    text = """<ir_version: 10, opset_import: ["": 23]> g (float[n,2,3] x) => (float[n,k,3] y)
      <float[1,1,3] token = {1,2,3}, int64[1] first = {0}, int64[2] rest = {1,3}, int64[3] open = {-1,-1,-1},
       int64[3] ones = {1,1,1}>
      { s = Shape(x) b = Gather(s, first) t = Concat<axis = 0>(b, rest) q = Equal(t, open) w = Where(q, ones, t)
        e = Expand(token, w) y = Concat<axis = 1>(e, x) }"""
    model = load(parser.parse_model(text))
    shapes = {
        info.name: [axis.dim_value or axis.dim_param for axis in info.type.tensor_type.shape.dim]
        for info in (*model.proto.graph.value_info, *model.proto.graph.output)
    }
    batch = model.proto.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert shapes["e"] == [batch, 1, 3]
    assert shapes["y"] == [batch, 3, 3]
