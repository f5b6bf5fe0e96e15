"""Write the large weights of a model to a file beside it, as ONNX's external data."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from converters.system.atomic import Chunk, write_chunks
from converters.weights.references import array_of, copied, is_reference

_PAGE = 4096


def with_data_file(proto: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Write the weights that a model refers to, and return the model to be written to `path`.

    The file is named after the model. Each tensor begins at a page, so that runtimes can map it.
    """
    copy, location = copied(proto), f"{path.name}.data"
    outside = [tensor for tensor in copy.graph.initializer if is_reference(tensor)]
    arrays = [array_of(tensor) for tensor in outside]
    write_chunks(path.with_name(location), list(_chunks(arrays)))
    offset = 0
    for tensor, array in zip(outside, arrays, strict=True):
        del tensor.external_data[:]
        for key, value in (("location", location), ("offset", offset), ("length", array.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        offset += array.nbytes + _rest(array)
    return copy


def _chunks(arrays: list[np.ndarray]) -> Iterator[Chunk]:
    for array in arrays:
        yield array.reshape(-1).view(np.uint8).data
        yield bytes(_rest(array))


def _rest(array: np.ndarray) -> int:
    """The bytes to the next page."""
    return -array.nbytes % _PAGE
