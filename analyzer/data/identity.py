"""What tells one job from another: the model, the method, its settings, the versions. As JSON, for a manifest.

From Python objects to plain values. Arrays are hashed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from analyzer.backends import Differentiable
from analyzer.errors import AnalysisError
from converters import Model
from converters.system.hashes import file_sha256


def model_identity(model: Any, proto: onnx.ModelProto) -> dict[str, Any]:
    """Return the name and the sha256 of a model.

    model: as it was given. The hash of a file is that of `sha256sum`; external weights are listed with their own. Any
    other model is hashed as its ONNX graph, `proto`.
    """
    if isinstance(model, (str, os.PathLike)) and Path(model).exists():
        path = Path(model)
        if path.is_file():
            found: dict[str, Any] = {"name": path.name, "sha256": file_sha256(path)}
            if data := _external(path):
                found["data"] = {name: file_sha256(path.parent / name) for name in data}
            return found
        files = sorted(one for one in path.rglob("*") if one.is_file())
        whole = hashlib.sha256()
        for one in files:
            whole.update(f"{one.relative_to(path).as_posix()}\0{file_sha256(one)}\n".encode())
        return {"name": path.name, "sha256": whole.hexdigest()}
    inner = model.model if isinstance(model, Differentiable) else model
    name = str(model) if isinstance(model, str) else type(inner).__name__
    return {"name": proto.graph.name if isinstance(inner, Model) else name, "sha256": _of_proto(proto)}


def described(value: Any) -> Any:
    """Return a setting or a target as JSON: numbers and texts as they are, arrays as hashes.

    Raises AnalysisError for any other object.
    """
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(key): described(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(one) for one in value]
    if is_dataclass(value) and not isinstance(value, type):
        given = {one.name: getattr(value, one.name) for one in fields(value)}
        stated = {name: described(one) for name, one in given.items() if one is not None}
        return {type(value).__name__: stated}
    array = np.asarray(value)
    if array.dtype == object:
        # Two of them could not be told apart, and a run would continue another job.
        raise AnalysisError(
            f"expected settings of numbers, texts and arrays, got {type(value).__name__}. Fix: give it as an array"
        )
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": content}


def versions() -> dict[str, str]:
    """Return the versions of the packages that the numbers and the files depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("onnxplain", "onnx", "onnxruntime", "numpy", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _external(path: Path) -> list[str]:
    """The files of external weights of an .onnx file."""
    if path.suffix.lower() != ".onnx":
        return []
    proto = onnx.load(path, load_external_data=False)
    found = {
        entry.value
        for tensor in onnx.external_data_helper._get_all_tensors(proto)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return sorted(name for name in found if (path.parent / name).is_file())


def _of_proto(proto: onnx.ModelProto) -> str:
    """The hash of a graph and its weights, piece by piece: the whole may be too large for one message."""
    found = hashlib.sha256()
    graph = proto.graph
    small = [
        *proto.opset_import,
        *proto.metadata_props,
        *proto.functions,
        *graph.input,
        *graph.output,
        *graph.node,
    ]
    for piece in small:
        found.update(piece.SerializeToString(deterministic=True) + b"\n")
    for tensor in graph.initializer:
        found.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}\n".encode())
        found.update(tensor.raw_data or tensor.SerializeToString(deterministic=True))
    return found.hexdigest()
