"""Small networks and data for the tests of data sets: an image classifier with preprocessing, and a table's."""

from __future__ import annotations

import io

import numpy as np
import onnx
from onnx import helper, numpy_helper
from PIL import Image

import onnxplain as ox

CLASSES = ("cat", "dog", "fish")


def image_network(size: int | str = 16) -> onnx.ModelProto:
    """Conv, Relu, mean over pixels, Gemm: (N, 3, size, size) to logits of three classes."""
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.standard_normal((4, 3, 3, 3)) * 0.4,
        "b": rng.standard_normal(4) * 0.2,
        "v": rng.standard_normal((4, 3)),
        "c": rng.standard_normal(3) * 0.1,
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["conv"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "v", "c"], ["logits"]),
    ]
    return _proto(nodes, weights, {"image": ["N", 3, size, size]}, {"logits": ["N", 3]})


def image_model(size: int = 16) -> ox.Model:
    """The image network with its preprocessing and the names of its classes."""
    half = (0.5, 0.5, 0.5)
    return ox.convert(
        image_network(size), preprocessing=ox.Preprocessing((size, size), half, half), class_names=CLASSES
    )


def table_network() -> onnx.ModelProto:
    """Two inputs, (N, 4) and (N, 2), to one logit (N, 1) followed by a Sigmoid."""
    rng = np.random.default_rng(2)
    weights = {"w": rng.standard_normal((4, 1)), "v": rng.standard_normal((2, 1))}
    nodes = [
        helper.make_node("MatMul", ["a", "w"], ["aw"]),
        helper.make_node("MatMul", ["b", "v"], ["bv"]),
        helper.make_node("Add", ["aw", "bv"], ["sum"]),
        helper.make_node("Sigmoid", ["sum"], ["chance"]),
    ]
    return _proto(nodes, weights, {"a": ["N", 4], "b": ["N", 2]}, {"chance": ["N", 1]})


def _proto(nodes, weights, inputs, outputs) -> onnx.ModelProto:
    def infos(shapes):
        return [
            helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in shapes.items()
        ]

    stored = [numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items()]
    graph = helper.make_graph(nodes, "small", infos(inputs), infos(outputs), stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def photographs(count: int, seed: int = 0, height: int = 20, width: int = 24) -> list[np.ndarray]:
    """Images (height, width, 3) of uint8."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (height, width, 3), np.uint8) for _ in range(count)]


def png(pixels: np.ndarray) -> bytes:
    """The bytes of an image file."""
    found = io.BytesIO()
    Image.fromarray(pixels).save(found, "PNG")
    return found.getvalue()
