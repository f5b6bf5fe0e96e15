"""A small CNN and a small BERT as exporters write them, and what ONNX Runtime's optimizers make of them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from tests.converters.helpers import make_model, normal

WIDTH, HEADS = 16, 2


def cnn(opset: int) -> onnx.ModelProto:
    """Convolutions with every activation that the runtime fuses, a residual connection, GELU and SiLU."""
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b"], ["c1"], "conv1", **pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2", "b"], ["c2"], "conv2", **pads),
        helper.make_node("Add", ["c2", "r1"], ["a2"]),
        helper.make_node("Relu", ["a2"], ["r2"]),
        helper.make_node("Conv", ["r2", "w2", "b"], ["c3"], "conv3", **pads),
        helper.make_node("LeakyRelu", ["c3"], ["r3"], alpha=0.2),
        helper.make_node("Conv", ["r3", "w2", "b"], ["c4"], "conv4", **pads),
        helper.make_node("Clip", ["c4", "low", "high"], ["r4"]),
        *gelu("r4", "g4"),
        helper.make_node("Conv", ["g4", "w2", "b"], ["c5"], "conv5", **pads),
        helper.make_node("Tanh", ["c5"], ["r5"]),
        helper.make_node("Sigmoid", ["r5"], ["s5"]),
        helper.make_node("Mul", ["r5", "s5"], ["m5"]),
        helper.make_node("GlobalAveragePool", ["m5"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3"], ["y"]),
    ]
    constants = {
        "w1": 0.5 * normal(8, 3, 3, 3, seed=1),
        "w2": 0.3 * normal(8, 8, 3, 3, seed=2),
        "w3": normal(8, 5, seed=3),
        "b": 0.1 * normal(8, seed=4),
        "low": np.asarray(-1, np.float32),
        "high": np.asarray(1, np.float32),
        **GELU,
    }
    return make_model(nodes, {"x": ("n", 3, 8, 8)}, ["y"], constants, opset)


GELU = {
    "root": np.asarray(np.sqrt(2), np.float32),
    "one": np.asarray(1, np.float32),
    "half": np.asarray(0.5, np.float32),
}


def gelu(x: str, y: str) -> list[onnx.NodeProto]:
    return [
        helper.make_node("Div", [x, "root"], [f"{y}.d"]),
        helper.make_node("Erf", [f"{y}.d"], [f"{y}.e"]),
        helper.make_node("Add", [f"{y}.e", "one"], [f"{y}.a"]),
        helper.make_node("Mul", [x, f"{y}.a"], [f"{y}.m"]),
        helper.make_node("Mul", [f"{y}.m", "half"], [y]),
    ]


def normalized(x: str, y: str) -> list[onnx.NodeProto]:
    """A layer normalization in primitives, as exporters wrote it before opset 17."""
    return [
        helper.make_node("ReduceMean", [x], [f"{y}.mean"], axes=[-1]),
        helper.make_node("Sub", [x, f"{y}.mean"], [f"{y}.sub"]),
        helper.make_node("Pow", [f"{y}.sub", "two"], [f"{y}.pow"]),
        helper.make_node("ReduceMean", [f"{y}.pow"], [f"{y}.var"], axes=[-1]),
        helper.make_node("Add", [f"{y}.var", "epsilon"], [f"{y}.eps"]),
        helper.make_node("Sqrt", [f"{y}.eps"], [f"{y}.sqrt"]),
        helper.make_node("Div", [f"{y}.sub", f"{y}.sqrt"], [f"{y}.div"]),
        helper.make_node("Mul", [f"{y}.div", "gamma"], [f"{y}.mul"]),
        helper.make_node("Add", [f"{y}.mul", "beta"], [y]),
    ]


def encoder_layer(x: str, y: str) -> list[onnx.NodeProto]:
    """Self-attention and a feed-forward part, each with its residual connection and normalization."""
    nodes = []
    for part, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        name = f"{y}.{part}"
        nodes += [
            helper.make_node("MatMul", [x, f"w{part}"], [f"{name}.mm"]),
            helper.make_node("Add", [f"{name}.mm", f"b{part}"], [f"{name}.add"]),
            helper.make_node("Reshape", [f"{name}.add", "split"], [f"{name}.heads"]),
            helper.make_node("Transpose", [f"{name}.heads"], [name], perm=perm),
        ]
    return [
        *nodes,
        helper.make_node("MatMul", [f"{y}.q", f"{y}.k"], [f"{y}.qk"]),
        helper.make_node("Div", [f"{y}.qk", "scale"], [f"{y}.scores"]),
        helper.make_node("Add", [f"{y}.scores", "hidden"], [f"{y}.masked"]),
        helper.make_node("Softmax", [f"{y}.masked"], [f"{y}.p"], axis=-1),
        helper.make_node("MatMul", [f"{y}.p", f"{y}.v"], [f"{y}.pv"]),
        helper.make_node("Transpose", [f"{y}.pv"], [f"{y}.back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", [f"{y}.back", "merge"], [f"{y}.merged"]),
        helper.make_node("MatMul", [f"{y}.merged", "wo"], [f"{y}.o"]),
        helper.make_node("Add", [f"{y}.o", "bq"], [f"{y}.ob"]),
        helper.make_node("Add", [f"{y}.ob", x], [f"{y}.res"]),
        *normalized(f"{y}.res", f"{y}.n"),
        helper.make_node("MatMul", [f"{y}.n", "wf"], [f"{y}.f"]),
        helper.make_node("Add", [f"{y}.f", "bf"], [f"{y}.fb"]),
        *gelu(f"{y}.fb", f"{y}.g"),
        helper.make_node("MatMul", [f"{y}.g", "wg"], [f"{y}.h"]),
        helper.make_node("Add", [f"{y}.h", "bk"], [f"{y}.hb"]),
        helper.make_node("Add", [f"{y}.hb", f"{y}.n"], [f"{y}.res2"]),
        *normalized(f"{y}.res2", y),
    ]


def widened(x: str, y: str, opset: int) -> list[onnx.NodeProto]:
    """(n, 4) as (n, 1, 1, 4), one axis at a time, as torch's x[:, None, None] is exported."""
    if opset < 13:
        return [
            helper.make_node("Unsqueeze", [x], [f"{y}.1"], axes=[1]),
            helper.make_node("Unsqueeze", [f"{y}.1"], [y], axes=[2]),
        ]
    return [
        helper.make_node("Unsqueeze", [x, "axis1"], [f"{y}.1"]),
        helper.make_node("Unsqueeze", [f"{y}.1", "axis2"], [y]),
    ]


def bert(opset: int) -> onnx.ModelProto:
    """Two encoder layers over embedded words (n, 4, WIDTH) with a mask (n, 4); five logits of the first word."""
    nodes = [
        *widened("mask", "wide", opset),
        helper.make_node("Cast", ["wide"], ["seen"], to=1),
        helper.make_node("Sub", ["one", "seen"], ["unseen"]),
        helper.make_node("Mul", ["unseen", "masked"], ["hidden"]),
        *normalized("x", "e"),
        *encoder_layer("e", "l1"),
        *encoder_layer("l1", "l2"),
        helper.make_node("Gather", ["l2", "first"], ["word"], axis=1),
        helper.make_node("MatMul", ["word", "head"], ["y"]),
    ]
    shapes = {f"w{part}": (WIDTH, WIDTH) for part in "qkvo"}
    shapes |= {"wf": (WIDTH, 2 * WIDTH), "wg": (2 * WIDTH, WIDTH), "head": (WIDTH, 5)}
    constants = {name: normal(*shape, seed=i) / 4 for i, (name, shape) in enumerate(shapes.items())}
    constants |= {f"b{part}": 0.1 * normal(WIDTH, seed=i) for i, part in enumerate("qkv", 10)}
    constants |= {
        **GELU,
        "bf": 0.1 * normal(2 * WIDTH, seed=20),
        "split": np.asarray([0, 0, HEADS, WIDTH // HEADS]),
        "merge": np.asarray([0, 0, WIDTH]),
        "scale": np.asarray(np.sqrt(WIDTH // HEADS), np.float32),
        "two": np.asarray(2, np.float32),
        "epsilon": np.asarray(1e-6, np.float32),
        "gamma": 1 + 0.1 * normal(WIDTH, seed=21),
        "beta": 0.1 * normal(WIDTH, seed=22),
        "first": np.asarray(0),
        "axis1": np.asarray([1]),
        "axis2": np.asarray([2]),
        "masked": np.asarray(-10000, np.float32),
    }
    used = {name for node in nodes for name in node.input}
    kept = {name: array for name, array in constants.items() if name in used}
    inputs = {"x": ("n", 4, WIDTH), "mask": ("n", 4)}
    return make_model(nodes, inputs, ["y"], kept, opset, integers=["mask"])


def optimized(model: onnx.ModelProto, folder: Path, level: str = "EXTENDED") -> Path:
    """The file that ONNX Runtime writes at an optimization level."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return folder / "optimized.onnx"


def optimized_as_transformer(model: onnx.ModelProto, folder: Path) -> Path:
    """The file that onnxruntime.transformers writes, which knows attention."""
    from onnxruntime.transformers.optimizer import optimize_model

    onnx.save(model, folder / "given.onnx")
    logging.disable(logging.WARNING)
    try:
        made = optimize_model(
            str(folder / "given.onnx"), model_type="bert", num_heads=HEADS, hidden_size=WIDTH, opt_level=0
        )
    finally:
        logging.disable(logging.NOTSET)
    onnx.save(made.model, folder / "optimized.onnx")
    return folder / "optimized.onnx"
