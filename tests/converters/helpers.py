"""Small models and a plain runner, shared by the tests of `converters`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]


def make_model(
    nodes: Sequence[onnx.NodeProto],
    inputs: dict[str, Shape],
    outputs: Sequence[str],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 23,
    integers: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model of float inputs (int64 where named in `integers`) and float outputs of unknown shape."""
    graph = helper.make_graph(
        nodes,
        "test",
        [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if name in integers else TensorProto.FLOAT, shape
            )
            for name, shape in inputs.items()
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in (constants or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs on ONNX Runtime, without its own optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, feeds)


def ops(model: onnx.ModelProto) -> Counter[str]:
    """How often each op occurs."""
    return Counter(node.op_type for node in model.graph.node)


def shape_of(info: onnx.ValueInfoProto) -> list[int | str]:
    """The shape of an input or output."""
    return [axis.dim_param or axis.dim_value for axis in info.type.tensor_type.shape.dim]


def normal(*shape: int, seed: int = 0, dtype: type = np.float32) -> np.ndarray:
    """Standard normal noise."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
