"""Refuse tensors that are too large to be computed, before anything is.

Reads the types that shape inference finds. A size that is left open, such as the batch, counts as 1.
"""

from __future__ import annotations

import math

import onnx
from onnx import helper

from converters.errors import InvalidModel, UnsupportedModel

MOST_ELEMENTS = 1 << 34
"""Elements that a computed tensor may have: 64 GiB of float32."""
MOST_VERIFIED = 1 << 32
"""Bytes of the largest tensor of a model that is run to compare it with its file."""

MOST_OF_INPUT = 1 << 29
"""Bytes of the largest input of such a model: noise is made for it."""

LONGEST_VECTOR = 1 << 22
"""Whole numbers that an input or output of one axis may state."""
_WHOLE = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)


def refuse_boundless(info: onnx.ValueInfoProto) -> None:
    """Raise InvalidModel for a tensor of a size that no machine holds, or of a negative one."""
    if any(dim.dim_value < 0 for dim in info.type.tensor_type.shape.dim):
        sizes = [dim.dim_value or dim.dim_param or "?" for dim in info.type.tensor_type.shape.dim]
        raise InvalidModel(
            f"expected sizes of at least 0, got {info.name!r} of {sizes}: a window is larger than its input, or more "
            "is cut off than there is. Fix: export the model again"
        )
    if (count := _elements(info)) > MOST_ELEMENTS:
        raise InvalidModel(
            f"expected tensors of at most {MOST_ELEMENTS} elements, got {info.name!r} of {count}. "
            "Fix: export the model for smaller inputs"
        )


def refuse_long_vector(info: onnx.ValueInfoProto) -> None:
    """Raise InvalidModel for a long vector of whole numbers: ONNX's shape inference keeps a symbol for each of them."""
    kind = info.type.tensor_type
    if len(kind.shape.dim) == 1 and kind.elem_type in _WHOLE and (count := _elements(info)) > LONGEST_VECTOR:
        raise InvalidModel(
            f"expected vectors of at most {LONGEST_VECTOR} whole numbers, got {info.name!r} of {count}. "
            "Fix: export the model for smaller inputs"
        )


def refuse_oversized(proto: onnx.ModelProto) -> None:
    """Raise UnsupportedModel where a run, to compare a model with its file, would fill the memory."""
    given = [(info, MOST_OF_INPUT) for info in proto.graph.input]
    computed = [(info, MOST_VERIFIED) for info in (*proto.graph.value_info, *proto.graph.output)]
    for info, most in (*given, *computed):
        try:
            width = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).itemsize
        except KeyError:
            continue
        if (size := _elements(info) * width) > most:
            raise UnsupportedModel(
                f"expected a tensor of at most {most / 2**30:g} GiB in a model that is run to verify it, got "
                f"{info.name!r} of {size / 2**30:.1f} GiB. Fix: export the model for smaller inputs, or load it with "
                "verify=False (--no-verify)"
            )


def _elements(info: onnx.ValueInfoProto) -> int:
    sizes = [dim.dim_value for dim in info.type.tensor_type.shape.dim if dim.HasField("dim_value")]
    return 0 if any(size <= 0 for size in sizes) else math.prod(sizes)
