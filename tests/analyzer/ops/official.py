"""The official ONNX node tests of every registered op, and the table of those left out, with the reason."""

from __future__ import annotations

import re
import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from analyzer.ops import registered

NARROW_FLOATS = (
    "float8, float4 and 4-bit or 2-bit integers carry no gradient and are no dtype of the frameworks"
)
STRINGS = "text is no tensor of the frameworks"
NEWER = "uses an attribute that the op gained after the canonical opset"
NEWER_TYPES = "uses a dtype that the op gained after the canonical opset"
OLDER = "uses a form of the op that canonical graphs no longer have: the converters upgrade it"
ALIGNED = (
    "ONNX Runtime, as PyTorch, aligns the corners of the rounded size, the test those of the unrounded one"
)
UNPOOLED = "ONNX Runtime, as PyTorch, counts indices in output_shape, the test in the shape without it"
EXCLUDED: dict[str, str] = {
    r"(cast|castlike)_.*(FLOAT8|FLOAT4|INT4|INT2|E8M0|E5M2|E4M3|e8m0)": NARROW_FLOATS,
    r"(cast|castlike|equal|identity)_.*(STRING|string)": STRINGS,
    r"quantizelinear_(e4m3fn|e5m2|float4e2m1|u?int[24]\b)": NARROW_FLOATS,
    r"torch/(.*_uint(16|32|64)|bitwise_not_3d)$": "PyTorch has no arithmetic for these integers",
    r"bitshift_.*_int(8|16|32|64)": NEWER_TYPES,
    r"bernoulli": "draws at random",
    r"range_.*type": NEWER,
    r"resize_downsample_scales_(linear|cubic)_align_corners": ALIGNED,
    r"maxunpool_export_with_output_shape": UNPOOLED,
    r"split_.*_opset13": OLDER,
    r"dropout_(default|random)_old": OLDER,
    r"(identity)_(sequence|opt)": "sequences and optionals are no tensors",
    r"(lstm|gru|rnn)_batchwise": "layout=1 is no form of a canonical graph: the converters rewrite it",
    r"batchnorm_.*training_mode": "training mode is refused: a model is analyzed in inference mode",
    r"training_dropout": "training mode is refused: a model is analyzed in inference mode",
}


def excluded(name: str, framework: str) -> str | None:
    """Why a test is left out in a framework, or None."""
    known = f"{framework}/{name}"
    return next((why for pattern, why in EXCLUDED.items() if re.search(pattern, known)), None)


@lru_cache(maxsize=1)
def node_tests() -> dict[str, Any]:
    """Single-node official tests of registered ops by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    found = {}
    for case in cases:
        nodes = case.model.graph.node
        if len(nodes) == 1 and (nodes[0].domain, nodes[0].op_type) in registered():
            found[case.name.removeprefix("test_")] = case
    return found


def arrays(values: Any, infos: Any) -> dict[str, Any]:
    """A data set's values by the names of the graph's inputs or outputs."""
    result = {}
    for info, value in zip(infos, values, strict=False):
        array = numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value
        result[info.name] = array if isinstance(array, (list, type(None))) else np.asarray(array)
    return result
