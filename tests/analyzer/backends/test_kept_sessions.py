"""The sessions that are kept are a part of the memory that a model may use."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from analyzer import Target, differentiate

WIDTH, LAYERS = 256, 24
MIB = 2**20


@pytest.fixture(scope="module")
def model():
    """A chain of layers: 6 MiB of weights, and an inner target at each."""
    rng = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((rng.normal(size=(WIDTH, WIDTH)) / 16).astype(np.float32), f"w{index}")
        for index in range(LAYERS)
    ]
    names = ["x", *(f"h{index}" for index in range(LAYERS - 1)), "y"]
    nodes = []
    for index, (before, after) in enumerate(pairwise(names)):
        nodes.append(
            helper.make_node("MatMul", [before, f"w{index}"], [f"{after}.product"], name=f"m{index}")
        )
        nodes.append(helper.make_node("Tanh", [f"{after}.product"], [after], name=f"t{index}"))
    infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", infos[:1], infos[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_many_targets_stay_within_the_limit_and_give_the_same(model):
    x = np.random.default_rng(1).normal(size=(2, WIDTH)).astype(np.float32)
    free, limited = differentiate(model), differentiate(model, max_memory=160 * MIB)
    for index in range(LAYERS - 1):
        target = Target(f"h{index}", index=3)
        expected = free.gradients(x, target).gradients["x"]
        np.testing.assert_array_equal(limited.gradients(x, target).gradients["x"], expected)
        assert limited.engine.held <= 0.25 * 160 * MIB + 2 * 7 * MIB
    assert free.engine.held > 100 * MIB
