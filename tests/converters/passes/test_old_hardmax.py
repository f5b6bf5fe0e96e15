"""Hardmax below opset 13 takes all axes from the stated one on as one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from converters import load
from tests.converters.helpers import run


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
