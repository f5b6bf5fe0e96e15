"""Weights in half precision, which stay so in memory and are widened where they are used."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx

HALVES: frozenset[np.dtype[Any]] = frozenset({np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)})
_WIDE = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


def is_widening(node: onnx.NodeProto) -> bool:
    """Return whether a node casts to float32 or float64, which holds every number of half precision."""
    return (
        node.op_type == "Cast"
        and node.domain in ("", "ai.onnx")
        and any(entry.name == "to" and entry.i in _WIDE for entry in node.attribute)
    )
