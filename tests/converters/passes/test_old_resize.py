"""Upsample and Resize of opsets 7 to 10 keep their coordinates: pixel i of the result lies at i / scale."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters import load
from tests.converters.helpers import run


def resized(opset: int, op_type: str, scales: list[float], mode: str) -> onnx.ModelProto:
    """Return a model of one op of an old opset."""
    stated = {"scales": [float(size) for size in scales]} if opset < 9 else {}
    given = [] if opset < 9 else ["scales"]
    graph = helper.make_graph(
        [helper.make_node(op_type, ["x", *given], ["y"], mode=mode, **stated)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [] if opset < 9 else [numpy_helper.from_array(np.asarray(scales, np.float32), "scales")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("scales", [[1, 1, 2, 2], [1, 1, 1.5, 3], [1, 1, 0.5, 0.5], [1, 1, 0.5, 1]])
@pytest.mark.parametrize(("opset", "op_type"), [(7, "Upsample"), (9, "Upsample"), (10, "Resize")])
def test_an_old_resize_gives_what_the_file_gives(
    opset: int, op_type: str, scales: list[float], mode: str
) -> None:
    if op_type == "Upsample" and min(scales) < 1:
        scales = [1 / size for size in scales]
    file = resized(opset, op_type, scales, mode)
    x = np.random.default_rng(0).standard_normal((2, 2, 4, 4)).astype(np.float32)
    np.testing.assert_allclose(
        run(load(file).proto, {"x": x})[0], run(file, {"x": x})[0], rtol=1e-5, atol=1e-6
    )


def test_a_linear_upsample_lies_between_its_neighbours() -> None:
    """Pixel 1 of an image that is doubled lies halfway between the first two pixels."""
    x = np.arange(16, dtype=np.float32).reshape(1, 1, 4, 4).repeat(2, 1)
    (y,) = run(load(resized(9, "Upsample", [1, 1, 1, 2], "linear")).proto, {"x": x})
    np.testing.assert_allclose(y[0, 0, 0], [0, 0.5, 1, 1.5, 2, 2.5, 3, 3], atol=1e-6)
