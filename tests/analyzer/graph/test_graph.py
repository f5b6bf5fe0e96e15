"""The read-only view: shapes, constants, completed attributes, reach; the emitter's constants; channel axes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from analyzer.graph.builder import Builder
from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.graph.graph import Graph, Tensor
from analyzer.graph.program import assemble

HEADER = '<ir_version: 10, opset_import: ["": 23]>'


def graph(text: str) -> Graph:
    return Graph.from_proto(parser.parse_model(f"{HEADER}\n{text}"))


CHAIN = graph(
    "g (float[n,3] x, int64[n] k) => (float[n,3] y)"
    " <float[3] b = {1, 2, 3}> { h = Add(x, b) r = Relu(h) s = Softmax(r) y = Mul(s, r) z = Neg(k) }"
)


def test_tensors_have_dtype_shape_and_constant():
    assert CHAIN.inputs == ("x", "k")
    assert CHAIN.outputs == ("y",)
    assert CHAIN.tensors["x"].shape == ("n", 3)
    assert CHAIN.tensors["x"].is_float
    assert not CHAIN.tensors["k"].is_float
    np.testing.assert_array_equal(CHAIN.tensors["b"].constant, [1, 2, 3])


def test_attributes_are_completed_from_the_schema():
    assert CHAIN.producer["s"].attributes == {"axis": -1}
    pool = graph("g (float[n,1,4] x) => (y) { y = MaxPool<kernel_shape = [2]>(x) }").nodes[0].attributes
    assert pool["kernel_shape"] == [2]
    assert pool["ceil_mode"] == 0
    assert pool["auto_pad"] == "NOTSET"
    assert pool["strides"] is None


def test_reach_in_both_directions():
    assert CHAIN.descendants(["r"]) == {"r", "s", "y"}
    assert CHAIN.ancestors(["s"]) == {"s", "r", "h", "x", "b"}
    assert [node.op_type for node in CHAIN.consumers["r"]] == ["Softmax", "Mul"]
    assert CHAIN.descendants(["x"], lambda node, index: node.op_type == "Add") == {"x", "h"}


def test_a_subgraph_reads_what_its_body_captures():
    outer = graph(
        "g (bool c, float[n] x, float[n] w) => (float[n] y) { y = If (c) <"
        " then_branch = t () => (float[n] a) { a = Mul(x, w) },"
        " else_branch = e () => (float[n] b) { b = Neg(x) }> }"
    )
    assert set(outer.nodes[0].captured) == {"x", "w"}
    assert outer.ancestors(["y"]) == {"y", "c", "x", "w"}


def test_numbers_take_the_dtype_of_the_tensor_beside_them_and_are_stored_once():
    op = Builder(23)
    x = Tensor("x", np.dtype(np.float64), (2,))
    op.Add(op.Mul(x, 2.0), 2.0)
    assert [array.dtype for array in op.initializers.values()] == [np.float64]
    k = Tensor("k", np.dtype(np.int64), (2,))
    op.Less(k, 0)
    assert {array.dtype.name for array in op.initializers.values()} == {"float64", "int64"}
    with pytest.raises(AttributeError, match="no operator 'Mull'"):
        op.Mull(x, x)


def test_assembly_takes_live_nodes_only_and_feeds_what_is_available():
    op = Builder(23, prefix="more/")
    dead, live = op.Exp(CHAIN.tensors["s"]), op.Neg(CHAIN.tensors["r"])
    assert dead.name != live.name
    whole = assemble(CHAIN, op, {"out": live})
    assert [node.op_type for node in whole.proto.graph.node] == ["Add", "Relu", "Neg"]
    assert whole.inputs == ("x",)
    rest = assemble(CHAIN, op, {"out": live}, available=["r"])
    assert [node.op_type for node in rest.proto.graph.node] == ["Neg"]
    assert rest.inputs == ("r",)


def test_the_channel_axis_is_followed_through_transposes_and_elementwise_ops():
    image = graph(
        "g (float[n,8,8,3] x) => (float[n,8,8,4] y) <float[4,3,1,1] w, float[3] mean = {1, 1, 1}> {"
        " s = Sub(x, mean) t = Transpose<perm = [0, 3, 1, 2]>(s) c = Conv(t, w) r = Relu(c)"
        " u = Transpose<perm = [0, 2, 3, 1]>(r) y = Neg(u) }"
    )
    axes = channel_axes(_shaped(image, {"s": 4, "t": 4, "c": 4, "r": 4, "u": 4}))
    assert {name: axes[name] for name in "xstcruy"} == {
        "x": 3,
        "s": 3,
        "t": 1,
        "c": 1,
        "r": 1,
        "u": 3,
        "y": 3,
    }


def test_an_input_that_no_layer_speaks_for_is_read_by_its_short_axis():
    plain = graph("g (float[n,8,8,3] x, float[n,3,8,8] z) => (float[n,8,8,3] y) { y = Neg(x) }")
    assert input_channel_axis(plain, "x", {}) == 3
    assert input_channel_axis(plain, "z", {}) == 1


def _shaped(view: Graph, ranks: dict[str, int]) -> Graph:
    """The graph with the ranks that shape inference would have given."""
    tensors = dict(view.tensors)
    for name, rank in ranks.items():
        tensors[name] = Tensor(name, np.dtype(np.float32), (None,) * rank)
    return Graph(view.nodes, tensors, view.inputs, view.outputs, view.opset)
