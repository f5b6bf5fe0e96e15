"""One node of ONNX Runtime's own ops a case, with values: the runtime, which has the kernels, says what is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def integers(low: int, high: int, *shape: int, dtype: Any = np.int32) -> np.ndarray:
    return RNG.integers(low, high, shape).astype(dtype)


def codes(dtype: Any, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    return RNG.integers(limits.min, limits.max + 1, shape).astype(dtype)


def f32(value: float) -> np.ndarray:
    return np.asarray(value, np.float32)


@dataclass(frozen=True)
class Case:
    """A node. Inputs below `fed` are graph inputs, the rest initializers; `keep` names the outputs compared.

    `quantum`: the results are codes that may differ by one, at a share of elements below `rarely`.
    """

    op: str
    inputs: tuple[np.ndarray | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    fed: int = 1
    keep: tuple[int, ...] = (0,)
    domain: str = "com.microsoft"
    opset: int = 17
    quantum: bool = False

    def __str__(self) -> str:
        given = ",".join(f"{key}={value}" for key, value in self.attributes.items())
        shapes = ",".join("-" if x is None else "x".join(map(str, x.shape)) or "()" for x in self.inputs)
        return f"{self.op}[{shapes}]{given}"

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        return {f"x{i}": x for i, x in enumerate(self.inputs[: self.fed]) if x is not None}

    def proto(self) -> onnx.ModelProto:
        """A model of this one node; the first axis of its inputs is the symbolic batch where it may be."""
        names = ["" if x is None else f"x{i}" for i, x in enumerate(self.inputs)]
        outputs = [f"y{i}" if i in self.keep else "" for i in range(max(self.keep) + 1)]
        node = helper.make_node(self.op, names, outputs, name="node", domain=self.domain, **self.attributes)
        infos = [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
            for name, x in self.feeds.items()
        ]
        constants = [
            numpy_helper.from_array(x, name)
            for name, x in zip(names, self.inputs, strict=True)
            if x is not None and name not in self.feeds
        ]
        graph = helper.make_graph(
            [node], "case", infos, [onnx.ValueInfoProto(name=name) for name in outputs if name], constants
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return with_types(helper.make_model(graph, opset_imports=opsets, ir_version=8))


def with_types(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the element types of its outputs, as the runtime infers them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    kinds = {
        "tensor(float)": 1,
        "tensor(uint8)": 2,
        "tensor(int8)": 3,
        "tensor(int32)": 6,
        "tensor(int64)": 7,
    }
    for info, found in zip(model.graph.output, session.get_outputs(), strict=True):
        info.CopyFrom(helper.make_tensor_value_info(info.name, kinds[found.type], None))
    return model


X, LENGTHS = normal(2, 3, 8), np.asarray([3, 2], np.int32)
W, BIAS = normal(8, 24) * 0.5, normal(24)
VISIBLE = np.asarray([[1, 1, 0], [1, 1, 1]], np.int32)
LAYERS = [
    Case("FusedConv", (normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(4)), {"activation": "Relu"}),
    Case(
        "FusedConv",
        (normal(2, 3, 5, 5), normal(4, 3, 3, 3), normal(4), normal(2, 4, 5, 5)),
        {"activation": "Relu", "pads": [1, 1, 1, 1]},
    ),
    Case(
        "FusedConv",
        (normal(2, 4, 6, 6), normal(4, 2, 3, 3)),
        {"activation": "LeakyRelu", "activation_params": [0.3], "group": 2, "strides": [2, 2]},
    ),
    Case(
        "FusedConv",
        (normal(2, 3, 5), normal(4, 3, 2), normal(4)),
        {"activation": "Clip", "activation_params": [-0.5, 0.5], "auto_pad": "SAME_UPPER"},
    ),
    Case(
        "FusedConv",
        (normal(2, 3, 5), normal(4, 3, 2)),
        {"activation": "HardSigmoid", "activation_params": [0.3, 0.4]},
    ),
    *(
        Case("FusedConv", (normal(2, 3, 5), normal(4, 3, 2)), {"activation": name})
        for name in ("Tanh", "Sigmoid")
    ),
    Case("FusedGemm", (normal(2, 3), normal(3, 4), normal(4)), {"activation": "Relu"}),
    Case(
        "FusedGemm",
        (normal(2, 3), normal(4, 3), normal(4)),
        {"activation": "LeakyRelu", "activation_alpha": 0.2, "transB": 1, "alpha": 0.5, "beta": 2.0},
    ),
    Case("FusedMatMul", (normal(2, 3), normal(3, 4))),
    Case("FusedMatMul", (normal(2, 5, 3, 4), normal(2, 5, 6, 4)), {"transB": 1, "alpha": 0.25}, fed=2),
    Case("FusedMatMul", (normal(2, 5, 4, 3), normal(2, 5, 4, 6)), {"transA": 1}, fed=2),
    Case("FusedMatMul", (normal(2, 3, 4, 5), normal(3, 4, 5, 6)), {"transBatchA": 1}),
    Case("FusedMatMul", (normal(2, 3, 4, 5), normal(3, 4, 2, 6)), {"transBatchA": 1, "transA": 1}),
    Case("FusedMatMul", (normal(3, 4, 2, 6), normal(6, 3, 4, 5)), {"transBatchB": 1}),
    Case("TransposeMatMul", (normal(3, 2), normal(3, 4)), {"transA": 1, "alpha": 2.0}),
    Case("Trilu", (normal(2, 4, 4), np.asarray(1)), {"upper": 0}),
    Case("Pad", (normal(2, 3), np.asarray([0, 1, 0, 2]), f32(2.0).reshape(1))),
    Case("ExpandDims", (normal(2, 3), np.asarray(1, np.int32))),
    Case("GatherND", (normal(2, 3), np.asarray([[0, 1], [1, 2]]))),
    Case("Range", (f32(1), f32(7), f32(2)), fed=0),
    Case("Unique", (np.asarray([2.0, 1.0, 2.0, 0.0], np.float32),), keep=(0, 1, 2)),
]
ACTIVATIONS = [
    Case("Gelu", (X,)),
    Case("BiasGelu", (X, normal(8))),
    Case("FastGelu", (X,)),
    Case("FastGelu", (X, normal(8))),
    Case("QuickGelu", (X,)),
    Case("QuickGelu", (X,), {"alpha": 1.0}),
    Case("ScaledSiLU", (X,)),
]
NORMS = [
    Case("LayerNormalization", (X, normal(8), normal(8)), {"axis": -1}, domain="", opset=12),
    Case(
        "LayerNormalization",
        (X, normal(3, 8)),
        {"axis": 1, "epsilon": 0.1},
        domain="",
        opset=12,
        keep=(0, 1, 2),
    ),
    Case("SimplifiedLayerNormalization", (X, normal(8)), {"axis": -1, "epsilon": 0.1}, domain="", opset=12),
    Case("SkipLayerNormalization", (X, normal(2, 3, 8), normal(8)), fed=2),
    Case(
        "SkipLayerNormalization",
        (X, normal(2, 3, 8), normal(8), normal(8), normal(8)),
        {"epsilon": 0.1},
        2,
        (0, 3),
    ),
    Case("SkipLayerNormalization", (X, normal(3, 8), normal(8), normal(8))),
    Case("SkipSimplifiedLayerNormalization", (X, normal(2, 3, 8), normal(8), normal(8)), {}, 2, (0, 3)),
    Case(
        "EmbedLayerNormalization",
        (
            integers(0, 10, 2, 3),
            integers(0, 2, 2, 3),
            normal(10, 8),
            normal(5, 8),
            normal(2, 8),
            normal(8),
            normal(8),
        ),
        {"epsilon": 0.01},
        2,
        (0, 1),
    ),
    Case(
        "EmbedLayerNormalization",
        (
            integers(0, 10, 2, 3),
            None,
            normal(10, 8),
            normal(5, 8),
            None,
            normal(8),
            normal(8),
            VISIBLE,
            integers(0, 5, 2, 3),
        ),
        {},
        1,
        (0, 1, 2),
    ),
]
HEADS = {"num_heads": 2}
ATTENTION = [
    Case("Attention", (X, W, BIAS), HEADS),
    Case("Attention", (X, W), {**HEADS, "scale": 0.7}),
    Case("Attention", (X, W, BIAS, VISIBLE), HEADS),
    Case("Attention", (X, W, BIAS, VISIBLE), {**HEADS, "unidirectional": 1, "mask_filter_value": -3.0}),
    Case("Attention", (X, W, BIAS, integers(0, 2, 2, 3, 3)), HEADS),
    Case("Attention", (X, W, BIAS, LENGTHS), HEADS),
    Case("Attention", (X, W, BIAS, np.asarray([3, 2, 1, 0], np.int32)), HEADS),
    Case("Attention", (X, W, BIAS, None, None, normal(1, 2, 3, 3)), HEADS),
    Case("Attention", (X, normal(8, 20), normal(20)), {**HEADS, "qkv_hidden_sizes": [6, 6, 8]}),
    Case("MultiHeadAttention", (X, normal(2, 4, 8), normal(2, 4, 8)), HEADS, fed=3),
    Case("MultiHeadAttention", (X, normal(2, 4, 8), normal(2, 4, 6), normal(22)), HEADS, fed=3),
    Case("MultiHeadAttention", (X, normal(2, 2, 4, 4), normal(2, 2, 4, 4)), HEADS, fed=3),
    Case(
        "MultiHeadAttention",
        (X, normal(2, 3, 8), normal(2, 3, 8), None, VISIBLE, normal(2, 2, 3, 3)),
        {**HEADS, "unidirectional": 1, "scale": 0.4},
        fed=3,
    ),
    Case("MultiHeadAttention", (X, normal(2, 3, 8), normal(2, 3, 8), None, LENGTHS), HEADS, fed=3),
]
ANGLES = normal(12, 4)
COS, SIN = np.cos(ANGLES), np.sin(ANGLES)
PLACES = np.asarray([[0, 1, 2], [4, 5, 6]])
LONG = (normal(2, 3, 32), normal(2, 3, 16), normal(2, 3, 16))
FULL = (np.asarray([2, 2], np.int32), np.asarray(3, np.int32))
WIDE, COS8, SIN8 = (normal(2, 3, 64), normal(2, 3, 32), normal(2, 3, 32)), np.tile(COS, 2), np.tile(SIN, 2)
GROUPS = {"num_heads": 4, "kv_num_heads": 2}
DECODER = [
    Case("RotaryEmbedding", (normal(2, 3, 16), PLACES, COS, SIN)),
    Case("RotaryEmbedding", (normal(2, 3, 16), np.asarray([2]), COS, SIN), {"interleaved": 1}),
    Case(
        "RotaryEmbedding",
        (normal(2, 2, 3, 12), PLACES, COS, SIN),
        {"rotary_embedding_dim": 8, "num_heads": 2},
    ),
    Case("GroupQueryAttention", (*LONG, None, None, *FULL), GROUPS, 3, (0, 1, 2)),
    Case("GroupQueryAttention", (normal(2, 3, 64), None, None, None, None, *FULL), {**GROUPS, "scale": 0.2}),
    Case(
        "GroupQueryAttention",
        (*WIDE, None, None, *FULL, COS8, SIN8),
        {**GROUPS, "do_rotary": 1},
        3,
        (0, 1, 2),
    ),
    Case(
        "GroupQueryAttention",
        (*LONG, *(np.zeros((2, 2, 0, 8), np.float32),) * 2, *FULL, None, None, None, normal(2, 4, 3, 3)),
        {**GROUPS, "softcap": 5.0},
        3,
    ),
]
U8, I8 = np.uint8, np.int8
ZERO, SIGNED_ZERO = np.asarray(120, U8), np.asarray(-3, I8)
A8, B8 = codes(U8, 2, 3, 8), codes(I8, 8, 5)
PAIR = (A8, f32(0.02), ZERO, codes(U8, 2, 3, 8), f32(0.03), np.asarray(100, U8))
IMAGE = codes(U8, 2, 3, 6, 6)
LAST = codes(U8, 2, 6, 6, 3)
QUANTIZED = [
    Case("QLinearAdd", (*PAIR, f32(0.05), ZERO), fed=1, quantum=True),
    Case("QLinearMul", (*PAIR, f32(0.05), ZERO), fed=1, quantum=True),
    Case("QLinearSigmoid", (A8, f32(0.02), ZERO, f32(1 / 255), np.asarray(0, U8)), quantum=True),
    Case("QLinearLeakyRelu", (A8, f32(0.02), ZERO, f32(0.02), ZERO), {"alpha": 0.2}, quantum=True),
    Case("QLinearGlobalAveragePool", (IMAGE, f32(0.02), ZERO, f32(0.003), ZERO), quantum=True),
    Case(
        "QLinearGlobalAveragePool",
        (LAST, f32(0.02), ZERO, f32(0.003), ZERO),
        {"channels_last": 1},
        quantum=True,
    ),
    Case(
        "QLinearAveragePool",
        (IMAGE, f32(0.02), ZERO, f32(0.013), ZERO),
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]},
        quantum=True,
    ),
    Case(
        "QLinearSoftmax", (A8, f32(0.02), ZERO, f32(1 / 256), np.asarray(0, U8)), {"opset": 13}, quantum=True
    ),
    Case("QLinearConcat", (f32(0.03), ZERO, *PAIR), {"axis": 1}, fed=0, quantum=True),
    Case(
        "QLinearWhere",
        (integers(0, 2, 2, 3, 8, dtype=bool), *PAIR, f32(0.03), ZERO),
        fed=2,
        quantum=True,
    ),
    Case("NhwcMaxPool", (LAST,), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Case(
        "QLinearConv",
        (LAST, f32(0.02), ZERO, codes(I8, 4, 3, 3, 3), f32(0.01), np.asarray(0, I8), f32(0.1), ZERO),
        {"channels_last": 1, "pads": [1, 1, 1, 1]},
        quantum=True,
    ),
    Case("QuantizeLinear", (normal(2, 3, 4), f32(0.02), ZERO)),
    Case("DequantizeLinear", (A8, f32(0.02), ZERO)),
    Case(
        "QGemm",
        (
            codes(U8, 2, 8),
            f32(0.02),
            ZERO,
            B8,
            f32(0.01),
            SIGNED_ZERO,
            integers(-900, 900, 5),
            f32(0.1),
            ZERO,
        ),
        quantum=True,
    ),
    Case(
        "QGemm",
        (
            codes(U8, 2, 8),
            f32(0.02),
            ZERO,
            codes(I8, 5, 8),
            normal(5) ** 2 + 0.01,
            np.zeros(5, I8),
            integers(-90, 90, 5),
        ),
        {"transB": 1, "alpha": 0.5},
    ),
    Case("MatMulIntegerToFloat", (A8, B8, f32(0.02), f32(0.01), ZERO, SIGNED_ZERO, normal(5))),
    Case("MatMulIntegerToFloat", (A8, B8, f32(0.02), normal(5), ZERO)),
    Case("DynamicQuantizeMatMul", (X, B8, f32(0.01), SIGNED_ZERO, normal(5))),
    Case(
        "QAttention", (A8, codes(I8, 8, 24), BIAS, f32(0.004), f32(0.01), VISIBLE, ZERO, SIGNED_ZERO), HEADS
    ),
    Case("MatMulNBits", (normal(2, 40), codes(U8, 3, 3, 8), normal(9)), {"K": 40, "N": 3, "block_size": 16}),
    Case(
        "MatMulNBits",
        (normal(2, 40), codes(U8, 3, 3, 8), normal(9), codes(U8, 6), None, normal(3)),
        {"K": 40, "N": 3, "block_size": 16, "bits": 4},
    ),
    Case(
        "MatMulNBits",
        (normal(2, 32), codes(U8, 3, 2, 16), normal(6)),
        {"K": 32, "N": 3, "block_size": 16, "bits": 8},
    ),
]
CASES = [*LAYERS, *ACTIVATIONS, *NORMS, *ATTENTION, *DECODER, *QUANTIZED]
