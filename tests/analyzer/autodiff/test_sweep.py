"""The reverse sweep: broadcasts, shared tensors, dead paths, given cotangents, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from analyzer import Target, differentiate
from analyzer.autodiff.request import Request, full_program, gradient_name, observe, remainder_program
from analyzer.errors import UnsupportedOp
from analyzer.graph.graph import Graph
from analyzer.ops import registry

HEADER = '<ir_version: 10, opset_import: ["": 23]>'


def model(text: str):
    return parser.parse_model(f"{HEADER}\n{text}")


def array(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def gradient_of_sum(proto, x, wrt=None):
    """Gradients of the sum of the first output."""
    fn = differentiate(proto)
    y = fn.forward(x)[fn.graph.outputs[0]]
    return fn.gradients(x, Target(weights=np.ones_like(y)), wrt).gradients


def test_gradient_of_a_hand_solved_polynomial():
    # y = x³ + 2x, so y' = 3x² + 2.
    proto = model(
        "g (float[n] x) => (float[n] y) { s = Mul(x, x) c = Mul(s, x) d = Add(x, x) y = Add(c, d) }"
    )
    x = array(5)
    np.testing.assert_allclose(gradient_of_sum(proto, x)["x"], 3 * x**2 + 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("a_shape", "b_shape"),
    [((2, 3, 4), (4,)), ((2, 3, 4), (3, 1)), ((2, 1, 4), (2, 3, 1)), ((2, 3), (1, 1, 1)), ((4,), (2, 3, 4))],
)
@pytest.mark.parametrize("declared", ["static", "symbolic", "unknown"])
def test_broadcast_operands_get_gradients_of_their_own_shape(a_shape, b_shape, declared):
    def dims(shape, letter):
        names = {"static": str, "symbolic": lambda _: f"{letter}{next(count)}", "unknown": lambda _: "?"}
        return ",".join(names[declared](size) for size in shape)

    count = iter(range(100))
    proto = model(
        f"g (float[{dims(a_shape, 'a')}] a, float[{dims(b_shape, 'b')}] b)"
        " => (float y) { p = Mul(a, b) y = ReduceSum<keepdims = 0>(p) }"
    )
    a, b = array(*a_shape), array(*b_shape, seed=1)
    fn = differentiate(proto)
    program = fn.graph
    assert set(program.inputs) == {"a", "b"}
    # The two inputs have different numbers of rows here: they are no batch, so the engine is asked directly.
    from analyzer.target.target import Seed

    feeds = {"a": a, "b": b}
    found = fn.engine.evaluate(
        observe(("a", "b"), ("a", "b")), feeds, Seed("y", weights=np.ones((), np.float32))
    )
    expected_a = np.broadcast_to(b, np.broadcast_shapes(a_shape, b_shape))
    expected_b = np.broadcast_to(a, np.broadcast_shapes(a_shape, b_shape))
    np.testing.assert_allclose(found["gradient/a"], _sum_to(expected_a, a_shape), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["gradient/b"], _sum_to(expected_b, b_shape), rtol=1e-5, atol=1e-6)


def _sum_to(full: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    lead = full.ndim - len(shape)
    full = full.sum(axis=tuple(range(lead)))
    axes = tuple(i for i, size in enumerate(shape) if size == 1 and full.shape[i] != 1)
    return full.sum(axis=axes, keepdims=True)


def test_a_tensor_read_many_times_sums_its_contributions():
    proto = model("g (float[n] x) => (float[n] y) { y = Sum(x, x, x, x) }")
    np.testing.assert_array_equal(gradient_of_sum(proto, array(3))["x"], np.full(3, 4, np.float32))


def test_a_tensor_that_does_not_reach_the_target_has_gradient_zero():
    proto = model("g (float[n] x) => (float[n] y, float[n] z) { y = Mul(x, x) z = Sigmoid(x) }")
    x = array(4)
    np.testing.assert_array_equal(gradient_of_sum(proto, x, ["z"])["z"], np.zeros(4))


def test_gradient_zero_even_where_the_value_is_infinite():
    proto = model("g (float[n] x) => (float[n] y, float[n] z) { y = Mul(x, x) z = Reciprocal(x) }")
    x = np.zeros(2, np.float32)
    np.testing.assert_array_equal(gradient_of_sum(proto, x, ["z"])["z"], np.zeros(2))


def test_the_target_itself_has_its_weights_as_gradient():
    proto = model("g (float[n] x) => (float[n] y) { y = Sigmoid(x) z = Mul(y, y) }")
    np.testing.assert_array_equal(gradient_of_sum(proto, array(3), ["y"])["y"], np.ones(3))


@pytest.fixture
def det_is_unknown(monkeypatch):
    """Every op has a class by now: one is forgotten."""
    monkeypatch.delitem(registry._REGISTRY, ("", "Det"))


def test_a_node_without_a_rule_off_the_path_does_not_matter(det_is_unknown):
    proto = model("g (float[n,2,2] x) => (float[n,2,2] y) { y = Mul(x, x) d = Det(x) e = Mul(d, d) }")
    x = array(2, 2, 2)
    np.testing.assert_allclose(gradient_of_sum(proto, x)["x"], 2 * x, rtol=1e-6)


def test_a_node_without_a_rule_on_the_path_is_refused_by_name(det_is_unknown):
    proto = model("g (float[n,2,2] x) => (float[n] y) { [volume] d = Det(x) y = Mul(d, d) }")
    with pytest.raises(UnsupportedOp, match=r"'volume' \(Det\).*has no VJP rule.*CONTRIBUTING"):
        differentiate(proto).gradients(array(3, 2, 2))


def test_rounding_and_comparison_carry_no_gradient():
    # The mask depends on x but only through a comparison: y' = mask.
    proto = model(
        "g (float[n] x) => (float[n] y) <float z = {0}> { b = Greater(x, z) m = Cast<to = 1>(b) y = Mul(m, x) }"
    )
    x = array(6)
    np.testing.assert_array_equal(gradient_of_sum(proto, x)["x"], (x > 0).astype(np.float32))


def test_a_given_cotangent_stops_the_sweep():
    # y = sigmoid(x)², and the gradient at s is given as 7: at x it is 7·s·(1 − s), whatever lies above s.
    proto = model("g (float[n] x) => (float[n] y) { s = Sigmoid(x) y = Mul(s, s) }")
    graph = Graph.from_proto(differentiate(proto).model.proto)
    request = Request("test", ("x",), lambda op, graph, gradients: {"x": gradients["x"]})
    program = remainder_program(graph, request, values=graph.tensors, gradients=["s", "y"])
    assert gradient_name("s") in program.inputs
    assert gradient_name("y") not in program.inputs
    from analyzer.backends.onnxruntime import make_session

    s = np.array([0.25, 0.5], np.float32)
    feeds = {"s": s, "x": s, gradient_name("s"): np.full(2, 7, np.float32)}
    session = make_session(program.proto, ["CPUExecutionProvider"])
    (found,) = session.run(None, {name: feeds[name] for name in program.inputs})
    np.testing.assert_allclose(found, 7 * s * (1 - s), rtol=1e-6)


def test_only_the_nodes_between_are_differentiated():

    proto = model("g (float[n,4] x) => (float[n,4] y) { a = Sigmoid(x) b = Sigmoid(a) y = Sigmoid(b) }")
    graph = Graph.from_proto(proto)
    near = full_program(graph, observe(("b",), ("b",)), "y", weights=True)
    far = full_program(graph, observe(("x",), ("x",)), "y", weights=True)
    assert len(near.proto.graph.node) < len(far.proto.graph.node)


def test_every_emitted_op_is_plain_onnx():

    proto = model("g (float[n,4] x) => (float[n,4] y) { a = Relu(x) y = Softmax<axis = -1>(a) }")
    program = full_program(Graph.from_proto(proto), observe(("x",), ("x",)), "y", weights=False)
    assert {node.domain for node in program.proto.graph.node} <= {"", "ai.onnx"}
    assert [entry.domain for entry in program.proto.opset_import] == [""]


def test_a_slice_between_transposes_survives_the_runtimes_layout_optimiser():
    # The gradient is a Pad between two Transposes, which ONNX Runtime cancels by rewriting the Pad.
    proto = model(
        "g (float[n,3,4,5] x) => (float[n,3,2,5] y) <int64[1] one = {1}, int64[1] three = {3}>"
        " { t = Transpose<perm = [0,2,3,1]>(x) s = Slice(t, one, three, one)"
        " u = Transpose<perm = [0,3,1,2]>(s) y = Mul(u, u) }"
    )
    x = array(2, 3, 4, 5)
    expected = np.zeros_like(x)
    expected[:, :, 1:3] = 2 * x[:, :, 1:3]
    np.testing.assert_allclose(gradient_of_sum(proto, x)["x"], expected, rtol=1e-6)
