"""Recurrent ops beyond the table of cases: solved by hand, other lengths, the batch first, refusals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from analyzer import differentiate, full_grad
from analyzer.autodiff.sweep import sweep
from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor
from analyzer.graph.program import assemble
from converters import convert
from tests.analyzer.ops.agreement import assert_close
from tests.analyzer.ops.cases.recurrent import recurrent
from tests.analyzer.ops.harness import (
    Case,
    forward,
    gradient_model,
    native_gradients,
    onnxruntime_gradients,
    residual_value,
    run,
)
from tests.analyzer.ops.values import normal
from tools.coverage.node_tests import node_tests


def linear_recurrence(bias: float) -> Case:
    """h_t = 3 x_t + h_{t−1}/2 + bias, over four steps of one number."""
    inputs = (np.ones((4, 1, 1)), np.full((1, 1, 1), 3.0), np.full((1, 1, 1), 0.5), np.array([[bias, 0.0]]))
    given: dict[str, Any] = {"activations": ["Affine"], "activation_alpha": [1.0], "activation_beta": [0.0]}
    return Case("RNN", inputs, {"hidden_size": 1, **given}, outputs=2, target=1)


def test_gradient_of_a_linear_recurrence_halves_with_every_step_back():
    found = native_gradients(linear_recurrence(0.0), np.ones((1, 1, 1)), "torch")
    np.testing.assert_allclose(found[0].ravel(), [3 / 8, 3 / 4, 3 / 2, 3], rtol=1e-12)
    ours = onnxruntime_gradients(linear_recurrence(0.0), np.ones((1, 1, 1)))
    np.testing.assert_allclose(ours[0].ravel(), [3 / 8, 3 / 4, 3 / 2, 3], rtol=1e-6)


def test_residual_of_a_linear_recurrence_is_the_sum_of_its_biases():
    # 2 + 2/2 + 2/4 + 2/8
    np.testing.assert_allclose(residual_value(linear_recurrence(2.0)).ravel(), [3.75], rtol=1e-12)
    np.testing.assert_allclose(residual_value(linear_recurrence(0.0)).ravel(), [0.0], atol=1e-12)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("steps", [1, 7])
def test_one_gradient_graph_serves_every_length(op, steps):
    case = recurrent(op, direction="bidirectional", symbolic=(0, 1))
    longer = replace(case, inputs=(normal(steps, 2, 2), *case.inputs[1:]))
    g = np.random.default_rng(3).normal(size=forward(longer, longer.feeds).shape)
    model = gradient_model(case, np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"x0": longer.inputs[0].astype(np.float32), "g": g.astype(np.float32)}
    found = session.run(None, {i.name: feeds[i.name] for i in session.get_inputs()})
    assert_close(found, native_gradients(longer, g, "torch"), 1e-4)


def model_of(op: str, layout: int, x: np.ndarray, states: list[np.ndarray], case: Case) -> onnx.ModelProto:
    """The case's node with its data and states as constants, but for the data."""
    names = ["x", "w", "r", "b", "", *[f"s{i}" for i in range(len(states))]]
    outputs = ["y", "h", "c"][: 1 + len(states)]
    node = helper.make_node(op, names, outputs, name="node", layout=layout, **case.attributes)
    constants = dict(zip("wrb", case.inputs[1:4], strict=True)) | {f"s{i}": s for i, s in enumerate(states)}
    graph = helper.make_graph(
        [node],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_batch_first_is_the_transposed_sequence_first(op):
    case = recurrent(op, direction="bidirectional")
    x = normal(4, 3, 2).astype(np.float32)
    states = [normal(2, 3, 3) for _ in range(2 if op == "LSTM" else 1)]
    usual = convert(model_of(op, 0, x, states, case))
    turned = convert(model_of(op, 1, x.swapaxes(0, 1), [s.swapaxes(0, 1) for s in states], case))
    expected = list(differentiate(usual).forward(x).values())
    found = list(differentiate(turned).forward(x.swapaxes(0, 1)).values())
    np.testing.assert_allclose(found[0], expected[0].transpose(2, 0, 1, 3), rtol=1e-6)
    for one, other in zip(found[1:], expected[1:], strict=True):
        np.testing.assert_allclose(one, other.swapaxes(0, 1), rtol=1e-6)


@pytest.mark.parametrize("name", ["lstm_batchwise", "gru_batchwise", "simple_rnn_batchwise"])
@pytest.mark.parametrize("framework", ["torch", "tensorflow", "onnxruntime"])
def test_batch_first_gives_what_the_standard_expects(name, framework):
    test = next(test for test in node_tests() if test.name == name)
    found = differentiate(convert(test.model), backend=framework).forward(test.inputs)
    for key, expected in test.outputs.items():
        np.testing.assert_allclose(found[key], expected, rtol=1e-5, atol=1e-6)


def test_each_output_on_the_way_to_the_target_has_a_bias():
    """The target reads Y, Y_h and Y_c: the terms of all three make it complete."""
    case = recurrent("LSTM")
    x = normal(3, 4, 2).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["x"], ["steps_first"], name="order", perm=[1, 0, 2]),
        helper.make_node(
            "LSTM", ["steps_first", "w", "r", "b"], ["y", "h", "c"], name="lstm", **case.attributes
        ),
        helper.make_node("ReduceSum", ["y", "over"], ["total"], name="sum", keepdims=0),
        helper.make_node("Squeeze", ["h", "first"], ["last_h"], name="h_of"),
        helper.make_node("Squeeze", ["c", "first"], ["last_c"], name="c_of"),
        helper.make_node("Mul", ["last_h", "last_c"], ["product"], name="product"),
        helper.make_node("Add", ["total", "product"], ["logits"], name="logits"),
    ]
    constants = dict(zip("wrb", case.inputs[1:4], strict=True))
    stored = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in constants.items()]
    stored += [
        numpy_helper.from_array(np.array([0, 1]), "over"),
        numpy_helper.from_array(np.array([0]), "first"),
    ]
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        stored,
    )
    model = convert(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10), example=x
    )
    found = full_grad(differentiate(model, backend="torch", precision="float64"), x, 1)
    assert {"y", "h", "c"} <= found.bias_terms.keys()
    assert found.completeness.error.max() <= 1e-10
    assert full_grad(model, x, 1).completeness.error.max() <= 1e-4


def test_weights_that_depend_on_the_input_are_refused_by_name():
    graph = recurrent("GRU", active=(0, 2)).graph
    op = Builder(graph.opset, prefix="grad/")
    y = graph.tensors["y0"]
    with pytest.raises(UnsupportedOp, match=r"reads 'x2'.*no VJP rule"):
        sweep(graph, op, {"y0": Tensor("g", y.dtype, y.shape)}, ["x0", "x2"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Mish"], "'Mish' is not an activation of a recurrent op"),
        (["Affine"], "Affine needs activation_alpha"),
    ],
)
def test_a_function_that_onnx_does_not_define_is_refused(names, message):
    case = recurrent("RNN", activations=names)
    with pytest.raises(UnsupportedOp, match=message):
        gradient_model(case, np.float32)


def test_scan_of_an_emitter_is_a_running_sum_from_either_end():
    x = normal(5, 2)
    graph = Graph((), {"x": Tensor("x", x.dtype, x.shape)}, ("x",), (), 23)
    for reverse, expected in ((False, np.cumsum(x, 0)), (True, np.cumsum(x[::-1], 0)[::-1])):
        op = Builder(23, prefix="sum/")
        begin = op.tensor(np.zeros(2))

        def step(op: Builder, states: list[Tensor], elements: list[Tensor]) -> Any:
            total = op.Add(states[0], elements[0])
            return [total], [op.Mul(total, 1.0)]

        (last,), (sums,) = op.scan(step, [begin], [graph.tensors["x"]], reverse)
        proto = assemble(graph, op, {"last": last, "sums": sums}).proto
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        read = Graph.from_proto(proto)
        for found in (
            session.run(list(read.outputs), {"x": x}),
            *(run(read, {"x": x}, read.outputs, framework) for framework in ("torch", "tensorflow")),
        ):
            np.testing.assert_allclose(found[0], x.sum(0), rtol=1e-12)
            np.testing.assert_allclose(found[1], expected, rtol=1e-12)


def test_a_scan_that_no_gradient_is_made_of_is_refused_by_the_frameworks():
    body = helper.make_graph(
        [helper.make_node("Identity", ["e"], ["o"])],
        "body",
        [helper.make_tensor_value_info("e", TensorProto.DOUBLE, None)],
        [helper.make_tensor_value_info("o", TensorProto.DOUBLE, None)],
    )
    given = {"body": body, "num_scan_inputs": 1, "scan_input_directions": [1]}
    graph = helper.make_graph(
        [helper.make_node("Scan", ["x"], ["y"], name="turned", **given)],
        "model",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, [3, 2])],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, None)],
    )
    read = Graph.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)]))
    with pytest.raises(UnsupportedOp, match=r"'turned' \(Scan\): only a Scan along axis 0, in one direction"):
        run(read, {"x": normal(3, 2)}, ["y"], "torch")
