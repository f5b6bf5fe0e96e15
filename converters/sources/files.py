"""Read an `.onnx` file safely: typed errors, and external weights from inside the model's folder alone.

Returns an `onnx.ModelProto` that holds all its weights, or refers to large ones inside `sharing`. Refuses files that
are no ONNX model, truncated ones, and external data outside the folder or shorter than the model says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper
from onnx.external_data_helper import load_external_data_for_tensor

from converters.budget import current
from converters.errors import InvalidModel, one_line
from converters.validation.fields import validate_texts
from converters.weights.mapping import MAPPED, mapped
from converters.weights.references import (
    LARGE,
    SMALLEST,
    is_sharing,
    lifted,
    plain_bytes,
    reference,
)

LARGEST_MESSAGE = 2**31 - 1
"""Bytes that a file of protobuf may hold."""

_AGAIN = (
    "Fix: copy or export the file again, until onnx.load takes it, or give another framework's file to "
    "onnxplain.convert under its usual suffix"
)
_WHOLE = "Fix: load it where it was made, and write it as one file with onnx.save(onnx.load(path), new_path)"


def read_onnx(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """The model in a file, external weights included. Raises InvalidModel, with the path, on one line."""
    path = Path(path)
    if path.is_dir():
        raise InvalidModel(f"{path} is a folder, not an .onnx file. Fix: give the path of the file in it")
    if not path.exists():
        raise InvalidModel(f"{path} does not exist. Fix: give the path of an existing .onnx file")
    refuse_stream(path)
    if path.stat().st_size > LARGEST_MESSAGE:
        raise InvalidModel(
            f"{path}: expected a file of at most 2 GiB, found {path.stat().st_size:,} bytes. Fix: store its weights as "
            "external data, onnx.save_model(…, save_as_external_data=True)"
        )
    try:
        proto = onnx.load_model(path, load_external_data=False)
    except DecodeError as error:
        raise InvalidModel(
            f"{path} is not an ONNX model, or a truncated one: it cannot be decoded. {_AGAIN}"
        ) from error
    except OSError as error:
        raise InvalidModel(
            f"{path} cannot be read ({one_line(error)}). Fix: check its permissions"
        ) from error
    if not proto.ir_version or not (proto.graph.node or proto.graph.output):
        raise InvalidModel(f"{path} is not an ONNX model, or a truncated one: it holds no graph. {_AGAIN}")
    validate_texts(proto)
    loaded: dict[Path, int] = {}
    large = _large(proto)
    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            target, size = _load_external(tensor, path, tensor.name in large)
            loaded[target] = loaded.get(target, 0) + size
            repeated = sum(max(size - file.stat().st_size, 0) for file, size in loaded.items())
            if repeated > current().bytes_left:
                raise current().exceeded(
                    "bytes", "reading weights that lie in one place", tensor.name, repeated
                )
    return lifted(proto)


def _large(proto: onnx.ModelProto) -> set[str]:
    """The initializers in external data that are kept outside of protobuf: all large ones, of a large model."""
    outside = [t for t in proto.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
    found = {tensor.name: size for tensor in outside if (size := plain_bytes(tensor)) >= SMALLEST}
    return set(found) if is_sharing() and sum(found.values()) >= LARGE else set()


def refuse_stream(path: str | os.PathLike[str]) -> None:
    """Raise InvalidModel for a pipe, a device or a socket: reading it may wait, or never end."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise InvalidModel(
            f"{os.fspath(path)} is a pipe, a device or a socket. Fix: write the model to a file, and give its path"
        )


def _tensors(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _tensors_of(proto.graph)
    for function in proto.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: list[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for body in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _tensors_of(body)


def _load_external(tensor: onnx.TensorProto, path: Path, large: bool) -> tuple[Path, int]:
    """Load one tensor's data, after its place is seen to lie in the model's folder; return its file, and the bytes.

    large: refer to an array, which is mapped where the file is large.
    """
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    try:
        target: Path = (folder / location).resolve()
    except ValueError as error:  # a null character
        raise InvalidModel(
            f"{path}: the weights of {tensor.name!r} lie at {location!r}, no path. {_WHOLE}"
        ) from error
    linked = _in_cache(path, location, target)
    if not location or Path(location).is_absolute() or not (target.is_relative_to(folder) or linked):
        raise InvalidModel(
            f"{path}: the weights of {tensor.name!r} lie at {location!r}, outside the model's folder. {_WHOLE}"
        )
    if not target.is_file():
        raise InvalidModel(
            f"{path}: the file {location!r} with the weights of {tensor.name!r} is missing. Fix: copy it into the "
            "folder of the model"
        )
    offset, length = int(entries.get("offset", 0) or 0), int(entries.get("length", 0) or 0)
    if offset < 0 or length < 0 or offset + length > target.stat().st_size:
        raise InvalidModel(
            f"{path}: the file {location!r} ends before the weights of {tensor.name!r} do. Fix: copy it again, "
            "whole, or export the model again"
        )
    try:
        if large and (found := _array(tensor, target, offset, length)) is not None:
            tensor.CopyFrom(reference(found, tensor.name))
            return target, found.nbytes
        if linked or target.stat().st_size > LARGEST_MESSAGE:
            # The onnx package follows no links.
            tensor.raw_data = _part_of(target, offset, length)
        else:
            load_external_data_for_tensor(tensor, str(folder))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise InvalidModel(
            f"{path}: the weights of {tensor.name!r} cannot be read ({one_line(error)}). Fix: export the model again"
        ) from error
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]
    return target, len(tensor.raw_data)


def _array(tensor: onnx.TensorProto, path: Path, offset: int, length: int) -> np.ndarray | None:
    """The array of a tensor in a file; None where the file states another number of bytes than its sizes need."""
    needed = plain_bytes(tensor)
    held = path.stat().st_size
    if (length or held - offset) != needed:
        return None
    dtype, shape = helper.tensor_dtype_to_np_dtype(tensor.data_type), tuple(tensor.dims)
    if held >= MAPPED:
        return mapped(path, offset, dtype, shape)
    with path.open("rb") as file:
        file.seek(offset)
        array = np.fromfile(file, np.uint8, needed)
    if array.nbytes != needed:
        # The file became shorter while it was read: the onnx package says so.
        return None
    return array.view(dtype).reshape(shape)


def _in_cache(path: Path, location: str, target: Path) -> bool:
    """Whether a file is the content of a link in the cache of huggingface_hub: snapshots/REVISION/… to blobs/HASH."""
    above = path.absolute().parents
    snapshot = next((one for one in above if one.parent.name == "snapshots"), None)
    if snapshot is None or ".." in Path(location).parts:
        return False
    return target.is_relative_to((snapshot.parent.parent / "blobs").resolve())


def _part_of(path: Path, offset: int, length: int) -> bytes:
    """The bytes of a part of a file; without a length, to its end."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length or -1)
