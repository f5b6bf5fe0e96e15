"""The affine ops of ai.onnx.ml become ops of the standard, with the gradient of their formula."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from analyzer import differentiate, full_grad
from converters import convert
from tests.converters.helpers import normal, ops


def model_of(op_type: str, inputs: int = 1, **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(op_type, ["x"] * inputs, ["y"], domain="ai.onnx.ml", **attributes)
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.mark.parametrize(
    ("model", "gradient"),
    [
        (model_of("Scaler", offset=[1.0, 2.0, 3.0], scale=[1.0, 0.5, 2.0]), [0, 0.5, 0]),
        (model_of("Scaler", offset=[1.0], scale=[2.0]), [0, 2, 0]),
        (
            model_of("LinearRegressor", coefficients=[1.0, 2, 3, 4, 5, 6], intercepts=[0.5, 1.0], targets=2),
            [4, 5, 6],
        ),
        (model_of("FeatureVectorizer", 2, inputdimensions=[3, 3]), [0, 1, 0]),
    ],
    ids=["scaler", "one scale", "linear", "joined"],
)
def test_affine_ops_have_the_gradient_of_their_formula(model: onnx.ModelProto, gradient: list[float]) -> None:
    x = normal(2, 3)
    converted = convert(model, x)
    assert not {"Scaler", "LinearRegressor", "FeatureVectorizer"} & ops(converted.proto).keys()
    found = differentiate(converted).gradients(x, 1).gradients["x"]
    np.testing.assert_allclose(found, np.tile(np.float32(gradient), (2, 1)))
    assert full_grad(converted, x, 1).completeness.error.max() < 1e-5


def test_the_default_target_is_the_first_float_output_that_depends_on_the_input() -> None:
    nodes = [
        helper.make_node("ArgMax", ["x"], ["label"], axis=1, keepdims=0),
        helper.make_node("Identity", ["c"], ["constant"]),
        helper.make_node("Mul", ["x", "c"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [
            helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
            helper.make_tensor_value_info("constant", TensorProto.FLOAT, [3]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3]),
        ],
        [helper.make_tensor("c", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    found = differentiate(model).gradients(normal(2, 3), 1).gradients["x"]
    np.testing.assert_allclose(found, [[0, 2, 0], [0, 2, 0]])
