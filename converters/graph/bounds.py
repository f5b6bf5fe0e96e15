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
MOST_VERIFIED, VERIFIED, VERIFIED_PER_BYTE = 1 << 32, 1 << 26, 64
"""Bytes of the largest tensor of a model that is run to compare it with its file: at most, of a model without weights
and inputs, and for each byte of those. Comparing and explaining takes about 13 times as much.
"""

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
    graph = proto.graph
    held = sum(math.prod(tensor.dims) * _width(tensor.data_type) for tensor in graph.initializer)
    held += sum(map(_bytes, graph.input))
    most_computed = min(VERIFIED + VERIFIED_PER_BYTE * held, MOST_VERIFIED)
    given = [(info, MOST_OF_INPUT) for info in graph.input]
    computed = [(info, most_computed) for info in (*graph.value_info, *graph.output)]
    for info, most in (*given, *computed):
        if (size := _bytes(info)) > most:
            raise UnsupportedModel(
                f"expected a tensor of at most {most / 2**30:.3g} GiB in a model that is run to verify it, got "
                f"{info.name!r} of {size / 2**30:.3g} GiB. Fix: export the model for smaller inputs, or load it with "
                "verify=False (--no-verify)"
            )


def _bytes(info: onnx.ValueInfoProto) -> int:
    """The bytes of a tensor, 0 of anything else."""
    return _elements(info) * _width(info.type.tensor_type.elem_type)


def _width(kind: int) -> int:
    """The bytes of an element, 0 of an unknown type."""
    try:
        return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
    except KeyError:
        return 0


def _elements(info: onnx.ValueInfoProto) -> int:
    sizes = [dim.dim_value for dim in info.type.tensor_type.shape.dim if dim.HasField("dim_value")]
    return 0 if any(size <= 0 for size in sizes) else math.prod(sizes)
