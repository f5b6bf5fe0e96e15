"""Keep large weights outside of protobuf, as arrays that graphs, programs and sessions share.

Protobuf copies the bytes of a tensor whenever they are set or read, and writes no message above 2 GiB. Inside
`sharing`, the initializers of a large model refer to arrays of this process: `external_data` whose location has a key
after LOCATION. The arrays live until `sharing` ends, and as long as a Model or a session holds them. Refuses
references to arrays that no longer exist.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from weakref import WeakValueDictionary

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.errors import InvalidModel

LARGE = 64 * 2**20
"""Bytes of the weights of a model from which on they are kept outside of protobuf."""
SMALLEST = 2**16
"""Bytes of a tensor that is kept outside. No size or axis depends on the values of such a tensor."""
LARGEST_MESSAGE = 2**31 - 2**20
"""Bytes of a message that protobuf can write."""
LOCATION = "onnxplain:memory/"
"""What the location of a tensor begins with that refers to an array of this process, before the key of the array."""

# Packed numbers and texts have no plain bytes.
_PLAIN = frozenset(
    getattr(onnx.TensorProto, name)
    for name in (
        *("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "UINT8", "INT16", "UINT16", "INT32", "UINT32"),
        *("INT64", "UINT64", "BOOL"),
    )
)
_ARRAYS: WeakValueDictionary[str, np.ndarray] = WeakValueDictionary()
_KEPT: ContextVar[dict[int, tuple[str, np.ndarray]] | None] = ContextVar("onnxplain_weights", default=None)


@contextlib.contextmanager
def sharing() -> Iterator[None]:
    """Let protos that are made inside refer to large weights. The arrays live at least until the end."""
    if _KEPT.get() is not None:
        yield
        return
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def is_sharing() -> bool:
    """Return whether protos may refer to weights."""
    return _KEPT.get() is not None


def are_shared(constants: Mapping[str, np.ndarray]) -> bool:
    """Return whether a proto of a graph with these constants refers to the large ones."""
    return is_sharing() and sum(array.nbytes for array in constants.values()) >= LARGE


def tensors_of(constants: Mapping[str, np.ndarray]) -> Iterator[onnx.TensorProto]:
    """Yield the initializers of a graph, one at a time: references to large weights inside `sharing`, else copies."""
    shared = are_shared(constants)
    for name, array in constants.items():
        if shared and is_large(array):
            yield reference(array, name)
        else:
            yield numpy_helper.from_array(array, name)


def is_large(array: np.ndarray) -> bool:
    """Return whether an array of plain numbers is worth to be kept outside of protobuf."""
    return array.nbytes >= SMALLEST and helper.np_dtype_to_tensor_dtype(array.dtype) in _PLAIN


def reference(array: np.ndarray, name: str) -> onnx.TensorProto:
    """Return an initializer that refers to an array. Call it inside `sharing`."""
    kept = _KEPT.get()
    assert kept is not None, "a reference would outlive its array"
    array = array if array.flags.c_contiguous and array.flags.aligned else np.array(array, order="C")
    # One array has one key, by which equal tensors are found.
    key, _ = kept.setdefault(id(array), (secrets.token_hex(16), array))
    _ARRAYS[key] = array
    return external(array, name, key)


def external(array: np.ndarray, name: str, key: str = "") -> onnx.TensorProto:
    """Return an initializer of the type and shape of an array, whose data is outside."""
    tensor = onnx.TensorProto(
        name=name,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        dims=array.shape,
        data_location=onnx.TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key="location", value=f"{LOCATION}{key}")
    return tensor


def is_reference(tensor: onnx.TensorProto) -> bool:
    """Return whether a tensor refers to an array of this process."""
    return tensor.data_location == onnx.TensorProto.EXTERNAL and bool(key_of(tensor))


def key_of(tensor: onnx.TensorProto) -> str:
    """Return the key of the array that a tensor refers to; empty where it refers to none."""
    places = [entry.value for entry in tensor.external_data if entry.key == "location"]
    return next((place[len(LOCATION) :] for place in places if place.startswith(LOCATION)), "")


def array_of(tensor: onnx.TensorProto) -> np.ndarray:
    """Return the array of a tensor, shared where it is a reference. Raises InvalidModel where it no longer exists."""
    if not is_reference(tensor):
        array: np.ndarray = numpy_helper.to_array(tensor)
        return array
    found = _ARRAYS.get(key_of(tensor))
    if found is None:
        raise InvalidModel(
            f"the weights of {tensor.name!r} belong to a Model that no longer exists. Fix: keep the Model, or write it "
            "with model.save(path)"
        )
    return found


def weights_of(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the arrays that the initializers of a model refer to, by name."""
    return {tensor.name: array_of(tensor) for tensor in proto.graph.initializer if is_reference(tensor)}


def size_of(proto: onnx.ModelProto) -> int:
    """Return the bytes of a model, with those of the weights that it refers to."""
    outside = (tensor for tensor in proto.graph.initializer if is_reference(tensor))
    return int(proto.ByteSize()) + sum(plain_bytes(tensor) for tensor in outside)


def lifted(proto: onnx.ModelProto, least: int | None = None) -> onnx.ModelProto:
    """Return the model with its large weights outside; itself where they are small together, or outside of `sharing`.

    The arrays are copies of the bytes in the model. least: bytes of the weights from which on; default LARGE.
    """
    inside = [tensor for tensor in proto.graph.initializer if _is_liftable(tensor)]
    if (
        _KEPT.get() is None
        or not inside
        or sum(map(plain_bytes, inside)) < (LARGE if least is None else least)
    ):
        return proto
    # Protobuf frees the bytes of a tensor with its whole model: only a new one is smaller.
    light = without_initializers(proto)
    for tensor in proto.graph.initializer:
        if not _is_liftable(tensor):
            light.graph.initializer.append(tensor)
            continue
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        if len(tensor.raw_data) != plain_bytes(tensor):
            # A damaged tensor is refused where tensors are checked.
            return proto
        array = np.frombuffer(tensor.raw_data, dtype).reshape(tuple(tensor.dims))
        light.graph.initializer.append(reference(array, tensor.name))
    return light


def without_initializers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model without its initializers."""
    copy = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name != "graph":
            _copy_field(copy, field, value)
    for field, value in proto.graph.ListFields():
        if field.name != "initializer":
            _copy_field(copy.graph, field, value)
    return copy


def with_weights_fed(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a copy of a model whose large weights are inputs, and their arrays; the model itself without any.

    ONNX's C++ functions and ONNX Runtime read it: for them, a reference is a missing file.
    """
    weights = weights_of(proto)
    if not weights:
        return proto, weights
    light = without_initializers(proto)
    stated = {info.name for info in proto.graph.input}
    for tensor in proto.graph.initializer:
        if tensor.name not in weights:
            light.graph.initializer.append(tensor)
        elif tensor.name not in stated:
            light.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return light, weights


def complete(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Copy the weights into a model, in place, so that it can be used alone; return it.

    A model above 2 GiB keeps its references: protobuf could not write it.
    """
    outside = [tensor for tensor in proto.graph.initializer if is_reference(tensor)]
    if outside and size_of(proto) <= LARGEST_MESSAGE:
        for tensor in outside:
            tensor.raw_data = array_of(tensor).tobytes()
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    return proto


def copied(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy of a model. Its references stay references."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    return copy


def restore(weights: Mapping[str, np.ndarray]) -> None:
    """Make arrays known under their keys again, as after unpickling. The caller keeps them."""
    for key, array in weights.items():
        _ARRAYS.setdefault(key, array)


def _is_liftable(tensor: onnx.TensorProto) -> bool:
    return (
        tensor.data_type in _PLAIN
        and tensor.data_location != onnx.TensorProto.EXTERNAL
        and tensor.HasField("raw_data")
        and plain_bytes(tensor) >= SMALLEST
    )


def plain_bytes(tensor: onnx.TensorProto) -> int:
    """Return the bytes that a tensor of plain numbers takes."""
    if tensor.data_type not in _PLAIN:
        return 0
    count: int = math.prod(tensor.dims)
    return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _copy_field(target: onnx.ModelProto | onnx.GraphProto, field: object, value: object) -> None:
    name = field.name  # type: ignore[attr-defined]
    if isinstance(value, (str, bytes, int, float)):
        setattr(target, name, value)
    elif hasattr(value, "ListFields"):
        getattr(target, name).CopyFrom(value)
    else:
        getattr(target, name).extend(value)
