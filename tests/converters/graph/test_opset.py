"""Ops of old opsets compute what they did: Upsample and Resize by their coordinates, Hardmax over its axes."""

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


@pytest.mark.parametrize(("opset", "axis"), [(9, None), (9, 0), (9, 2), (11, -1), (12, 1), (12, -2), (13, 1)])
def test_an_old_hardmax_gives_what_the_file_gives(opset: int, axis: int | None) -> None:
    stated = {} if axis is None else {"axis": axis}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 4]) for name in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Hardmax", ["x"], ["y"], **stated)], "g", infos[:1], infos[1:]
    )
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=6)
    onnx.checker.check_model(file)
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    (y,) = run(load(file).proto, {"x": x})
    np.testing.assert_array_equal(y, run(file, {"x": x})[0])
    along = 1 if axis is None else axis % 3
    expected = x.reshape(int(np.prod(x.shape[:along])), -1) if opset < 13 else np.moveaxis(x, along, -1)
    assert y.sum() == expected[..., 0].size
