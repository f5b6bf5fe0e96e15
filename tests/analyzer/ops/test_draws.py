"""Ops that draw at random: noise is a constant of the gradient, a draw by its input has none."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import converters
from analyzer import AnalysisError, differentiate
from analyzer.backends.interpreter import Interpreter
from tests.analyzer.ops.harness import FRAMEWORKS, Graph, framework


def model(*nodes, opset=22):
    """A model from x (N, 3) to y, as an exporter would write it."""
    body = helper.make_graph(
        list(nodes),
        "draws",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


NOISE = [
    helper.make_node("RandomNormalLike", ["x"], ["noise"], scale=2.0),
    helper.make_node("RandomUniformLike", ["x"], ["noise"], low=-1.0),
    helper.make_node("RandomNormal", [], ["noise"], shape=[3], seed=1.0),
    helper.make_node("RandomUniform", [], ["noise"], shape=[3], seed=1.0),
]


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
@pytest.mark.parametrize("noise", NOISE, ids=[node.op_type for node in NOISE])
def test_noise_is_a_constant_of_the_gradient(noise, backend):
    # y = x² + x·noise: the gradient of its sum is 2x + noise, which y itself tells.
    square = helper.make_node("Mul", ["x", "x"], ["square"])
    product = helper.make_node("Mul", ["x", "noise"], ["product"])
    proto = model(noise, square, product, helper.make_node("Add", ["square", "product"], ["y"]))
    x = np.asarray([[0.5, -1.5, 2.0], [1.0, 3.0, -0.7]], np.float32)
    found = differentiate(converters.load(proto), backend=backend).gradients(x, target=1, wrt=["x", "y"])
    expected = np.zeros_like(x)
    expected[:, 1] = x[:, 1] + found.values["y"][:, 1] / x[:, 1]
    # Where the noise nearly cancels 2x, the rounding of y is all that is left of the expected value.
    np.testing.assert_allclose(found.gradients["x"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_a_draw_by_the_input_is_refused_by_name(backend):
    chance = helper.make_node("Sigmoid", ["x"], ["chance"])
    proto = model(chance, helper.make_node("Bernoulli", ["chance"], ["y"]))
    fn = differentiate(converters.load(proto), backend=backend)
    with pytest.raises(AnalysisError, match=r"\(Bernoulli\) .* draws at random"):
        fn.gradients(np.ones((2, 3), np.float32), target=0)


@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.parametrize(
    ("node", "mean", "deviation"),
    [
        (helper.make_node("RandomNormal", [], ["y"], shape=[20000], mean=2.0, scale=3.0), 2, 3),
        (helper.make_node("RandomUniform", [], ["y"], shape=[20000], low=-1.0, high=5.0), 2, 12**0.5 / 2),
        (helper.make_node("Bernoulli", ["p"], ["y"]), 0.25, 0.1875**0.5),
        # Logits log 1 and log 3: class 1 in three of four draws.
        (helper.make_node("Multinomial", ["logits"], ["y"], sample_size=20000), 0.75, 0.1875**0.5),
    ],
    ids=["normal", "uniform", "bernoulli", "multinomial"],
)
def test_draws_have_their_distribution(node, mean, deviation, name):
    node.attribute.append(helper.make_attribute("seed", 7.0))
    constants = {"p": np.full(20000, 0.25, np.float32), "logits": np.log(np.asarray([[1, 3]], np.float32))}
    infos = [
        helper.make_tensor_value_info(key, TensorProto.FLOAT, value.shape)
        for key, value in constants.items()
        if key in node.input
    ]
    body = helper.make_graph([node], "draw", infos, [helper.make_tensor_value_info("y", 1, None)])
    graph = Graph.from_proto(helper.make_model(body, opset_imports=[helper.make_opsetid("", 23)]))
    made = framework(name)
    feeds = {key: made.tensor(constants[key]) for key in graph.inputs}
    y = made.array(Interpreter(graph, made).run(feeds, ["y"])["y"]).astype(np.float64)
    assert abs(y.mean() - mean) < 5 * deviation / 20000**0.5
    assert abs(y.std() - deviation) < 0.05 * deviation
