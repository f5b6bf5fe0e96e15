"""Small models whose gradients are known, and the shape of a case: what is refused, and what its fix leads to.

DENSE is y = ReLU(x w) with positive x and w: the gradient of class k is column k of w, whatever the inputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from analyzer import differentiate
from analyzer.errors import AnalysisError
from converters import ConversionError

W = np.float32([[1, 2, 3], [4, 5, 6], [7, 8, 9], [2, 4, 8]])
X = np.float32([[1, 2, 3, 4], [4, 3, 2, 1]])
KERNEL = np.full((2, 3, 3, 3), 0.5, np.float32)
IMAGES = np.ones((2, 3, 8, 8), np.float32)
IDS = np.int64([[0, 1, 2], [3, 4, 5]])
TABLE = np.arange(1, 25, dtype=np.float32).reshape(6, 4)


def model_of(text: str, *, opset: int = 17, **constants: np.ndarray) -> onnx.ModelProto:
    """A model in ONNX's text format, with these constants."""
    imports = f'"" : {opset}, "ai.onnx.ml" : 3, "com.microsoft" : 1, "mine" : 1'
    model = parser.parse_model(f"<ir_version: 8, opset_import: [{imports}]>\n{text}")
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return model


def floats(nodes: str, **constants: np.ndarray) -> onnx.ModelProto:
    """A model of x, (N, 4), whose output is y, (N, 4)."""
    return model_of(f"g (float[N,4] x) => (float[N,4] y) {{ {nodes} }}", **constants)


DENSE = model_of("g (float[N,4] x) => (float[N,3] y) { h = MatMul(x, w) y = Relu(h) }", w=W)
TWO = model_of("g (float[N,4] a, float[N,4] b) => (float[N,4] y) { y = Mul(a, b) }")
CONV = model_of(
    "g (float[N,3,8,8] x) => (float[N,2] y) "
    "{ c = Conv<pads=[1,1,1,1]>(x, k) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p) }",
    k=KERNEL,
)
TOKENS = model_of(
    "g (int64[N,3] ids) => (float[N,3] y) { e = Gather(t, ids) s = ReduceSum<keepdims=0>(e, a) y = MatMul(s, w) }",
    t=TABLE,
    a=np.int64([1]),
    w=W,
)
QUANTIZED = floats(
    "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)", s=np.float32(0.1), z=np.int8(0)
)


class Case(NamedTuple):
    """What is refused; words of the fix; what the fix says, given its words, with the value that it must give."""

    refused: Callable[[], Any]
    words: str
    followed: Callable[[str], Any] | None = None
    truth: Any = None


def of_class(k: int) -> np.ndarray:
    """The gradient of class k of DENSE."""
    return np.tile(W[:, k], (2, 1))


def gradient_of(model: Any, inputs: Any, target: Any = 1, **options: Any) -> np.ndarray:
    """The gradient of the first input or tensor that is attributed."""
    (found, *_) = differentiate(model, **options).gradients(inputs, target).gradients.values()
    return found


def evaluated(fix: str, **names: Any) -> Any:
    """The value of the Python expression that ends a fix."""
    return eval(re.split(r"Fix: [a-z ,]*?(?=\w+[.\[])", fix)[-1], {"numpy": np, **names})


LAST = np.moveaxis(IMAGES, 1, -1) * np.float32([1, 2, 3])
FIRST = np.moveaxis(LAST, -1, 1)
NAN = np.where(X == 1, np.nan, X)


def assert_refused(case: Case) -> None:
    """Assert that the message is one line with a fix, and that the fix gives what it must."""
    with pytest.raises((AnalysisError, ConversionError)) as caught:
        case.refused()
    message = str(caught.value)
    what, _, fix = message.partition("Fix: ")
    assert what and case.words in fix and "\n" not in message, message
    if case.followed is not None:
        np.testing.assert_allclose(case.followed(f"Fix: {fix}"), case.truth, rtol=1e-5)
