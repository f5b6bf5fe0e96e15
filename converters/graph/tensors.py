"""Read the arrays that a file stores, and the shapes that types state."""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx import helper

from converters.budget import current
from converters.errors import InvalidModel, one_line
from converters.types import Shape
from converters.weights.references import array_of, is_reference


def shape_of(known: onnx.TypeProto) -> Shape | None:
    """Return the shape in a type: an int, a symbol or None (unknown) per axis; None where the rank is unknown."""
    kind = known.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(
        axis.dim_value if axis.HasField("dim_value") else (axis.dim_param or None) for axis in kind.shape.dim
    )


def is_invented(size: int | str | None) -> bool:
    """Return whether an axis has no size: none is stated, or a symbol that shape inference invented (unk__7)."""
    return size is None or (isinstance(size, str) and size.startswith("unk__"))


def forget_invented_symbols(known: onnx.TypeProto) -> None:
    """Remove invented symbols and sizes: shape inference would keep them where it can now say `batch`."""
    for axis in known.tensor_type.shape.dim if known.tensor_type.HasField("shape") else ():
        if is_invented(axis.dim_param):
            axis.ClearField("dim_param")
        if axis.dim_value < 0:
            # Some exporters state -1 for a size that is open.
            axis.ClearField("dim_value")


def constant_of(tensor: onnx.TensorProto) -> np.ndarray:
    """Return the array of a TensorProto. Raises InvalidModel where its data is damaged or outside the model."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL and not is_reference(tensor):
        raise InvalidModel(
            f"the weights of {tensor.name!r} lie outside the model. Fix: load it from its file"
        )
    try:
        return array_of(tensor)
    except (ValueError, TypeError) as error:
        raise InvalidModel(
            f"the initializer {tensor.name!r} is damaged ({one_line(error)}). Fix: export the model again"
        ) from error


def value_of(node: onnx.NodeProto) -> np.ndarray | None:
    """Return the array of a Constant node; None for a kind that NumPy has no array for."""
    (entry,) = node.attribute
    value = helper.get_attribute_value(entry)
    if entry.name == "value":
        return constant_of(value)
    if entry.name == "sparse_value":
        return dense_of(value)
    if entry.name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    if entry.name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if entry.name in ("value_string", "value_strings"):
        return np.asarray(value, object)
    return None


def dense_of(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """Return the array of a SparseTensorProto, zeros included. Raises LimitExceeded where it is too large."""
    values, indices = constant_of(sparse.values), constant_of(sparse.indices)
    shape = tuple(sparse.dims)
    current().take_bytes(
        math.prod(shape) * values.itemsize, "writing out the zeros of a sparse constant", sparse.values.name
    )
    array = np.zeros(shape, values.dtype)
    try:
        array[np.unravel_index(indices, shape) if indices.ndim == 1 else tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise InvalidModel(
            f"the sparse constant {sparse.values.name!r} is damaged ({one_line(error)}). Fix: export the model again"
        ) from error
    return array
