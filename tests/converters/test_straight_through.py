"""The rewritten graph in floats gives what ONNX Runtime gives for the quantized one, code by code."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters import UnsupportedModel, convert, load
from converters.straight_through import STRAIGHT_THROUGH, straight_through
from tests.converters.helpers import normal, run
from tests.converters.quantized_models import FORMS, images, quantized

U8, I8, U16, I16 = np.uint8, np.int8, np.uint16, np.int16


@pytest.mark.parametrize("form", FORMS)
def test_a_quantized_network_keeps_its_outputs(form: str) -> None:
    proto, x = quantized(form), images(16, seed=5)
    expected, found = run(proto, {"x": x})[0], run(straight_through(load(proto)).proto, {"x": x})[0]
    # A kernel of the runtime's own may round a code the other way: of 80 logits, few move by a quantum.
    quantum = 0.12
    assert np.abs(found - expected).max() <= quantum
    assert (np.abs(found - expected) > 1e-4).mean() <= 0.05


@pytest.mark.parametrize("form", FORMS)
def test_a_quantized_network_is_converted_and_verified(form: str) -> None:
    verification = convert(quantized(form)).verification
    assert verification is not None and verification.relative_l2 < 0.01


def graph(
    nodes: list[onnx.NodeProto], x: np.ndarray, constants: dict[str, np.ndarray], kind: Any, opset: int = 21
) -> onnx.ModelProto:
    """A model of the input x whose first axis is open, with the output y of an element type."""
    element = helper.np_dtype_to_tensor_dtype(x.dtype)
    body = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", element, ["n", *x.shape[1:]])],
        [helper.make_tensor_value_info("y", helper.np_dtype_to_tensor_dtype(np.dtype(kind)), None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def node(op: str, inputs: str, outputs: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), **attributes)


def f32(*values: float) -> np.ndarray:
    return np.asarray(values if len(values) > 1 else values[0], np.float32)


def codes(kind: Any, *shape: int, seed: int = 0) -> np.ndarray:
    limits = np.iinfo(kind)
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(kind)


QUANTIZE, DEQUANTIZE = "x s z", "q s z"
PAIRS = {
    f"{np.dtype(kind).name}": ((), f32(0.01), np.asarray(zero, kind), {})
    for kind, zero in ((U8, 120), (I8, -7), (U16, 30000), (I16, 9))
} | {
    "along an axis": ((4,), f32(0.01, 0.02, 0.03, 0.04), np.asarray([0, 100, 200, 255], U8), {"axis": 1}),
    "along the last axis": (
        (6,),
        np.linspace(0.01, 0.06, 6, dtype=np.float32),
        np.zeros(6, I8),
        {"axis": -1},
    ),
    "in blocks": (
        (4, 3),
        np.linspace(0.01, 0.1, 12, dtype=np.float32),
        codes(U8, 12),
        {"axis": 2, "block_size": 2},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_quantize_and_dequantize(name: str) -> None:
    shape, scale, zero, attributes = PAIRS[name]
    x = 2 * normal(3, 4, 6)
    if name == "in blocks":
        x, shape = x[:1], (1, 4, 3)
    constants = {"s": scale.reshape(shape), "z": zero.reshape(shape)}
    quantize = node("QuantizeLinear", QUANTIZE, "q", **attributes)
    pair = [quantize, node("DequantizeLinear", DEQUANTIZE, "y", **attributes)]
    assert_equal(graph(pair, x, constants, np.float32), x)
    # As an output of the graph, codes keep their zero point.
    alone = [node("QuantizeLinear", QUANTIZE, "y", **attributes)]
    assert_equal(graph(alone, x, constants, zero.dtype), x)


ZERO = {"s": f32(0.02), "z": np.asarray(100, U8), "s2": f32(0.03), "z2": np.asarray(7, U8)}
QUANTIZED_X = node("QuantizeLinear", QUANTIZE, "q")
NODES: dict[str, tuple[list[onnx.NodeProto], np.ndarray, dict[str, np.ndarray], Any]] = {
    "QLinearConv": (
        [
            QUANTIZED_X,
            node("QLinearConv", "q s z w ws wz s2 z2 b", pads=[1, 0, 1, 0], group=2, strides=[2, 1]),
        ],
        normal(2, 4, 6, 6),
        {
            **ZERO,
            "w": codes(I8, 6, 2, 3, 3),
            "ws": np.linspace(0.001, 0.004, 6, dtype=np.float32),
            "wz": np.zeros(6, I8),
            "b": np.arange(6, dtype=np.int32) * 100,
        },
        U8,
    ),
    "QLinearMatMul": (
        [QUANTIZED_X, node("QLinearMatMul", "q s z w ws wz s2 z2")],
        normal(3, 4, 8),
        {**ZERO, "w": codes(U8, 8, 5), "ws": f32(0.004), "wz": np.asarray(130, U8)},
        U8,
    ),
    "MatMulInteger": (
        [QUANTIZED_X, node("MatMulInteger", "q w z wz", "i"), node("Cast", "i", to=TensorProto.FLOAT)],
        normal(3, 8),
        {**ZERO, "w": codes(I8, 8, 5), "wz": np.asarray([1, 2, 3, 4, 5], I8)},
        np.float32,
    ),
    "ConvInteger": (
        [
            node("DynamicQuantizeLinear", "x", "q ds dz"),
            node("ConvInteger", "q w dz wz", "i", dilations=[2, 1]),
            node("Cast", "i", "f", to=TensorProto.FLOAT),
            node("Mul", "f ds"),
        ],
        normal(2, 3, 6, 6),
        {"w": codes(U8, 4, 3, 2, 2), "wz": np.asarray(127, U8)},
        np.float32,
    ),
    "codes that are moved": (
        [
            QUANTIZED_X,
            node("MaxPool", "q", "p", kernel_shape=[2, 2], pads=[1, 1, 0, 0]),
            node("Transpose", "p", "t", perm=[0, 2, 3, 1]),
            node("Reshape", "t shape", "r"),
            node("Concat", "r r", "c", axis=1),
            node("DequantizeLinear", "c s z"),
        ],
        normal(2, 3, 4, 4),
        {**ZERO, "shape": np.asarray([0, -1])},
        np.float32,
    ),
    "codes of two zero points": (
        [
            QUANTIZED_X,
            node("QuantizeLinear", "x s2 z2", "q2"),
            node("Concat", "q q2 k", "c", axis=0),
            node("DequantizeLinear", "c s2 z2"),
        ],
        normal(2, 3),
        {**ZERO, "k": codes(U8, 1, 3)},
        np.float32,
    ),
    "another zero point": (
        [QUANTIZED_X, node("DequantizeLinear", "q s2 z2")],
        normal(2, 3),
        ZERO,
        np.float32,
    ),
    "codes that are counted": (
        [
            QUANTIZED_X,
            node("Cast", "q", "i", to=TensorProto.INT32),
            node("Add", "i b", "j"),
            node("Cast", "j", "f", to=TensorProto.FLOAT),
            node("Shape", "q", "n"),
            node("Cast", "n", "nf", to=TensorProto.FLOAT),
            node("Add", "f nf"),
        ],
        normal(2, 2),
        {**ZERO, "b": np.asarray([5, -300], np.int32)},
        np.float32,
    ),
    "codes that are given": (
        [
            node("DequantizeLinear", "x s z", "d"),
            node("QuantizeLinear", "d s2 z2", "e"),
            node("DequantizeLinear", "e s2 z2"),
        ],
        codes(U8, 2, 5),
        ZERO,
        np.float32,
    ),
}


@pytest.mark.parametrize("name", NODES)
def test_nodes_on_codes(name: str) -> None:
    nodes, x, constants, kind = NODES[name]
    assert_equal(graph(nodes, x, constants, kind), x)


def assert_equal(proto: onnx.ModelProto, x: np.ndarray) -> None:
    """The graph in floats gives the very numbers of the quantized one, and rounds nowhere unmarked."""
    made = straight_through(load(proto)).proto
    for n in made.graph.node:
        assert n.op_type not in ("QuantizeLinear", "DequantizeLinear") or n.input[0] == "x"
        marked = any(entry.key == STRAIGHT_THROUGH for entry in n.metadata_props)
        assert marked == (n.op_type in ("Round", "Clip"))
    expected, found = run(proto, {"x": x})[0], run(made, {"x": x})[0]
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=1e-6)
    assert len(np.unique(expected)) > 1


def refusal(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], kind: Any) -> str:
    model = load(graph(nodes, normal(2, 3), constants, kind))
    with pytest.raises(UnsupportedModel) as caught:
        straight_through(model)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_floats_cannot_hold_is_refused_by_name() -> None:
    bits = [QUANTIZED_X, node("BitwiseAnd", "q z", "a"), node("DequantizeLinear", "a s z")]
    assert "(BitwiseAnd) computes with quantized codes" in refusal(bits, ZERO, np.float32)
    narrow = {"s": f32(0.02), "z": np.zeros((), ml_dtypes.float8_e4m3fn)}
    pair = [QUANTIZED_X, node("DequantizeLinear", DEQUANTIZE)]
    assert "rounds to float8_e4m3fn" in refusal(pair, narrow, np.float32)
