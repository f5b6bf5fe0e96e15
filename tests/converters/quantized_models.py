"""Small networks as ONNX Runtime's quantizer writes them: QDQ, QOperator, dynamic; nothing is downloaded."""

from __future__ import annotations

import logging
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from tests.converters.helpers import make_model, normal

BATCH = 2


def images(count: int = BATCH, seed: int = 1) -> np.ndarray:
    return normal(count, 3, 8, 8, seed=seed)


def network() -> onnx.ModelProto:
    """Conv, Relu, MaxPool, a residual Add, AveragePool, Sigmoid gate, Gemm: (N, 3, 8, 8) to (N, 5)."""
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu1"),
        helper.make_node("MaxPool", ["r1"], ["p1"], "pool1", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1], group=2),
        helper.make_node("Sigmoid", ["c2"], ["s2"], "gate"),
        helper.make_node("Mul", ["c2", "s2"], ["m2"], "swish"),
        helper.make_node("Add", ["m2", "p1"], ["a2"], "residual"),
        helper.make_node("GlobalAveragePool", ["a2"], ["g"], "pool2"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], "head", transB=1),
    ]
    weights = {
        "w1": 0.3 * normal(6, 3, 3, 3, seed=2),
        "b1": 0.1 * normal(6, seed=3),
        "w2": 0.3 * normal(6, 3, 3, 3, seed=4),
        "b2": 0.1 * normal(6, seed=5),
        "w3": normal(5, 6, seed=6),
        "b3": 0.1 * normal(5, seed=7),
    }
    return make_model(nodes, {"x": ("n", 3, 8, 8)}, ["y"], weights, opset=17)


class _Images(CalibrationDataReader):
    def __init__(self) -> None:
        self._batches = iter([{"x": images(8, seed)} for seed in (1, 11)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


FORMS = ("qdq", "qdq per channel", "qdq int8", "qdq 16 bits", "operators", "operators per channel", "dynamic")


@cache
def quantized(form: str) -> onnx.ModelProto:
    """The network in one of FORMS."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        onnx.save(network(), given)
        logging.disable(logging.WARNING)
        try:
            if form == "dynamic":
                quantize_dynamic(given, made, weight_type=QuantType.QUInt8)
            else:
                signed = form.endswith("int8") or form.startswith("operators")
                quantize_static(
                    given,
                    made,
                    _Images(),
                    quant_format=QuantFormat.QDQ if form.startswith("qdq") else QuantFormat.QOperator,
                    per_channel=form.endswith("per channel"),
                    activation_type=QuantType.QUInt16
                    if form.endswith("16 bits")
                    else (QuantType.QInt8 if form.endswith("int8") else QuantType.QUInt8),
                    weight_type=QuantType.QInt8 if signed or form != "qdq" else QuantType.QUInt8,
                )
        finally:
            logging.disable(logging.NOTSET)
        return onnx.load(made)
