"""Make the model of a page: its inputs are those that the page feeds, and no others.

A JavaScript runtime neither shows metadata nor takes optional inputs. The inputs that the page feeds lose their
default values and become required. All others (baseline, noise) become constants with their default values.
Raises ExportError where an input has no default value, and for a model of more than 2 GiB.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from analyzer.errors import ExportError
from analyzer.explainer.description import Port

MOST_BYTES = 2**31 - 1
_METADATA = "onnxplain."


def page_model(proto: onnx.ModelProto, ports: Collection[Port], fed: Collection[str]) -> bytes:
    """Return the file of a model whose only inputs are `fed`. ports: all inputs. Changes `proto`."""
    graph = proto.graph
    stored = {tensor.name for tensor in graph.initializer}
    for port in ports:
        if port.name not in fed and port.name not in stored:
            graph.initializer.append(numpy_helper.from_array(_default(port), port.name))
    kept_inputs = [info for info in graph.input if info.name in fed]
    kept_weights = [tensor for tensor in graph.initializer if tensor.name not in fed]
    del graph.input[:], graph.initializer[:]
    graph.input.extend(kept_inputs)
    graph.initializer.extend(kept_weights)
    # The page reads the description from its own file: tokenizers can be larger than models.
    kept = [entry for entry in proto.metadata_props if not entry.key.startswith(_METADATA)]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    return _serialized(proto)


def refuse_large(path: Path) -> None:
    """Raise ExportError for a file that a browser cannot load."""
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise _too_large(path.stat().st_size)


def _serialized(proto: onnx.ModelProto) -> bytes:
    # Messages of more than 2 GiB cannot be written, and not always measured.
    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    size = size if size > MOST_BYTES else proto.ByteSize()
    if size > MOST_BYTES:
        raise _too_large(size)
    content: bytes = proto.SerializeToString()
    return content


def _too_large(size: int) -> ExportError:
    return ExportError(
        f"expected an explainer of at most 2 GiB, which a browser can load, found {size / 2**30:.1f} GiB. Fix: export "
        "a smaller model, or with --fp16"
    )


def _default(port: Port) -> np.ndarray:
    """Return the default value of an input, of its rank; sizes of 1 broadcast."""
    try:
        value = np.asarray(port.default, np.dtype(port.type)) if port.default is not None else None
    except (TypeError, ValueError):
        value = None
    if value is None or value.dtype == object:
        raise ExportError(
            f"expected a default value of the input {port.name!r}, which the page does not ask for, found none. Fix: "
            "export the explainer again, with a default for it"
        )
    if value.ndim == 0:
        if port.role == "noise":
            # Noise must not be the same number everywhere.
            raise ExportError(
                f"expected stored noise as the default of {port.name!r}, found a number. Fix: export again"
            )
        return value.reshape((1,) * len(port.shape))
    return value
