"""Functions of constants in float64 are stored as exact as float64 is."""

from __future__ import annotations

import math

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters import canonicalise

C = np.array([[-3.0, -0.7, 1e-9, 0.3], [2.1, -1e-3, 4.0, 0.9]])
TRUTH = {
    "Erf": np.vectorize(math.erf)(C),
    "Sigmoid": 1 / (1 + np.exp(-C)),
    "Softplus": np.log1p(np.exp(C)),
    "Tanh": np.tanh(C),
    "Mish": C * np.tanh(np.log1p(np.exp(C))),
}


@pytest.mark.parametrize("op_type", TRUTH)
def test_a_function_of_a_constant_is_stored_in_float64(op_type: str) -> None:
    nodes = [helper.make_node(op_type, ["c"], ["k"]), helper.make_node("Add", ["x", "k"], ["y"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, ["n", 2, 4]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [numpy_helper.from_array(C, "c")])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    (stored,) = canonicalise(file).graph.initializer
    np.testing.assert_allclose(numpy_helper.to_array(stored), TRUTH[op_type], rtol=1e-14, atol=0)
