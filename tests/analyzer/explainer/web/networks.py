"""Small classifiers whose explanations the page shows, and names of classes that a page must not run."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from tests.analyzer.cli.conftest import build

HOSTILE = '<img src=x onerror="alert(1)">'
NAMES = (
    "great white shark", "tabby, tabby cat", "tiger cat", HOSTILE, "</script><script>alert(2)</script>", "café",
    "a very long name of a class that nobody would ever want to write down in full", "{{ 7 * 7 }} {class} $&",
    "snail", "white wolf", "tea", "tow truck",
)  # fmt: skip
SIDE, LENGTH = 16, 24


def photo_classifier() -> onnx.ModelProto:
    """Conv, Relu, mean, Gemm: images (N, 3, 16, 16) to twelve classes."""
    rng = np.random.default_rng(3)
    nodes = [
        helper.make_node("Conv", ["input", "k", "c"], ["h"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"], name="act"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "w", "b"], ["logits"], name="head"),
    ]
    weights = {
        "k": rng.standard_normal((8, 3, 3, 3)),
        "c": rng.standard_normal(8),
        "w": 2 * rng.standard_normal((8, len(NAMES))),
        "b": rng.standard_normal(len(NAMES)),
    }
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    return build(nodes, [("input", ["N", 3, SIDE, SIDE])], [("logits", ["N", len(NAMES)])], weights)


def text_classifier(vocabulary: int, classes: int = 3) -> onnx.ModelProto:
    """Embedding, Gemm, Relu, mean over tokens, Gemm: ids (N, 24) to classes."""
    rng = np.random.default_rng(4)
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"], name="embedding"),
        helper.make_node("MatMul", ["e", "k"], ["h"], name="mix"),
        helper.make_node("Add", ["h", "c"], ["s"], name="shift"),
        helper.make_node("Relu", ["s"], ["r"], name="act"),
        helper.make_node("ReduceMean", ["r"], ["p"], name="pool", axes=[1], keepdims=0),
        helper.make_node("Gemm", ["p", "w", "b"], ["logits"], name="head"),
    ]
    weights = {
        "table": rng.standard_normal((vocabulary, 8)),
        "k": rng.standard_normal((8, 16)),
        "c": rng.standard_normal(16),
        "w": rng.standard_normal((16, classes)),
        "b": rng.standard_normal(classes),
    }
    weights = {name: array.astype(np.float32) for name, array in weights.items()}
    model = build(nodes, [], [("logits", ["N", classes])], weights)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", LENGTH])
    model.graph.input.append(ids)
    return model
