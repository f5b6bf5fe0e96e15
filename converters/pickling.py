"""Pickle a Model: by the path of its file while that is unchanged, else with its weights.

From a Model to bytes that another process, or another machine that has the file, turns into an equal Model. Reading
them calls functions of this module alone. The network of another framework stays behind: it is in memory only. Refuses
models of more than 2 GiB that come from no file, and files that changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper
from onnx.external_data_helper import ExternalDataInfo

from converters.conversion import load
from converters.errors import ConversionError, InvalidModel, one_line
from converters.model import Model, Verification
from converters.system.hashes import file_sha256
from converters.weights.references import array_of, complete, is_reference, size_of

_LARGEST = 2**31 - 2**20


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of an .onnx file and of the files with its external weights, in hexadecimal digits.

    A file without external weights has the hash that sha256sum prints. Raises InvalidModel where one is missing.
    """
    own = Path(path)
    try:
        digests = [file_sha256(own), *(file_sha256(one) for one in external_files(own))]
    except OSError as error:
        raise InvalidModel(
            f"{own} or its external weights cannot be read ({one_line(error)}). Fix: give the path of an existing file"
        ) from error
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256(bytes.fromhex("".join(digests))).hexdigest()


def external_files(path: Path) -> list[Path]:
    """Return the files with the external weights of an .onnx file, sorted."""
    try:
        proto = onnx.load_model(path, load_external_data=False)
    except DecodeError:  # another framework's file
        return []
    external = (one for one in proto.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL)
    return sorted({path.parent / ExternalDataInfo(one).location for one in external})


def graph_hash(proto: onnx.ModelProto) -> str:
    """Return the SHA-256 of a graph with its weights, and without its metadata, in hexadecimal digits."""
    found = hashlib.sha256()
    graph = proto.graph
    parts: tuple[Iterable[Any], ...] = (
        proto.opset_import,
        proto.functions,
        graph.input,
        graph.output,
        graph.node,
        graph.initializer,
        graph.sparse_initializer,
    )
    for part in parts:
        found.update(b"|")
        for one in part:
            large = isinstance(one, onnx.TensorProto) and is_reference(one)
            message = _head(one) if large else one.SerializeToString(deterministic=True)
            found.update(len(message).to_bytes(8, "little"))
            found.update(message)
            if large:
                found.update(np.ascontiguousarray(array_of(one)).view(np.uint8).reshape(-1).data)
    return found.hexdigest()


def _head(tensor: onnx.TensorProto) -> bytes:
    """The name, type and shape of a tensor."""
    return repr((tensor.name, tensor.data_type, list(tensor.dims))).encode()


def reduced(model: Model) -> tuple[Any, ...]:
    """What pickle stores of a Model: a function of this module and plain values."""
    file, verified = model.file, _plain(model.verification)
    if file is not None and file.unchanged:
        stored = (file.path, file_hash(file.path), dict(file.options), graph_hash(model.light))
        return model_of_file, (*stored, model.metadata, verified)
    protos = []
    for proto in (model.light, model.light_original):
        if proto is not None and size_of(proto) > _LARGEST:
            raise ConversionError(
                f"a model of {size_of(proto) / 2**30:.1f} GiB that comes from no file, or from one that changed, is "
                "not pickled with its weights. Fix: model.save(path), and pickle onnxplain.load(path)"
            )
        protos.append(None if proto is None else complete(proto).SerializeToString())
    return model_of_bytes, (*protos, verified)


def model_of_bytes(proto: bytes, original: bytes | None, verification: tuple[Any, ...] | None) -> Model:
    """Return the Model that was pickled with its weights."""
    return Model(
        onnx.ModelProto.FromString(proto),
        None,
        _verification(verification),
        None if original is None else onnx.ModelProto.FromString(original),
    )


def model_of_file(
    path: str,
    digest: str,
    options: dict[str, bool],
    graph: str,
    metadata: dict[str, str],
    verification: tuple[Any, ...] | None,
) -> Model:
    """Return the Model that was pickled by the path of its file. Raises InvalidModel where the file is another one."""
    known = f"a model was pickled by its path, {path}"
    if not os.path.isfile(path):
        raise InvalidModel(
            f"{known}, which does not exist here. Fix: copy the file there, or pickle a model without a file, "
            "onnxplain.load(onnx.load(path))"
        )
    if file_hash(path) != digest:
        raise InvalidModel(f"{known}, and the file has changed since. Fix: load it and pickle it again")
    model = load(path, verify=False, run=options["run"], fold_batch_norm=options["fold_batch_norm"])
    if graph_hash(model.light) != graph:
        raise InvalidModel(
            f"{known}, and gives another graph here: it was edited after it was loaded, or by another version of "
            "onnxplain. Fix: save the edited model, model.save(path), and load that; use one version everywhere"
        )
    helper.set_model_props(model.light, metadata)
    found = Model(model.light, None, _verification(verification), model.light_original, model.folder)
    object.__setattr__(found, "file", model.file)
    return found


def _plain(found: Verification | None) -> tuple[Any, ...] | None:
    return None if found is None else tuple(vars(found).values())


def _verification(values: tuple[Any, ...] | None) -> Verification | None:
    return None if values is None else Verification(*values)
