"""Say what to do with models that onnxplain does not read: files by their suffix, objects by their library.

Pickled files are never loaded: unpickling runs code of the file.
"""

from __future__ import annotations

import inspect
import os
import zipfile
from collections.abc import Mapping

_LOAD = "Fix: load it in your own code, and give the nn.Module with an example input to onnxplain.convert"
_PICKLED = f"a pickled PyTorch file, and loading one can run its code. {_LOAD}"
_WEIGHTS = "a file of weights without the network"
_SCRIPT = (
    "a TorchScript archive, which holds no Python code to trace. "
    "Fix: give the nn.Module that was traced or scripted, with an example input, to onnxplain.convert"
)

SUFFIXES = {
    ".pt": _PICKLED,
    ".pth": _PICKLED,
    ".jit": _SCRIPT,
    ".torchscript": _SCRIPT,
    ".ptl": _SCRIPT,
    ".pte": "an ExecuTorch program, compiled for a device. Fix: give the nn.Module that it was made from",
    ".ckpt": f"a checkpoint, which holds weights without the network, or pickled code. {_LOAD}",
    ".bin": f"{_WEIGHTS}. {_LOAD}",
    ".safetensors": f"{_WEIGHTS}. {_LOAD}",
    ".npz": f"{_WEIGHTS}. Fix: build the network in your own code, and give it to onnxplain.convert",
    ".pkl": "a pickled object, and loading one can run its code. Fix: export the model to ONNX, such as with skl2onnx",
    ".pickle": "a pickled object, and loading one can run its code. Fix: export the model to ONNX",
    ".joblib": "a pickled object, and loading one can run its code. Fix: export the model to ONNX",
    ".mlmodel": "a Core ML model. Fix: give the model that it was converted from",
    ".mlpackage": "a Core ML model. Fix: give the model that it was converted from",
    ".engine": "a TensorRT engine, compiled for one GPU. Fix: give the ONNX file that it was built from",
    ".plan": "a TensorRT engine, compiled for one GPU. Fix: give the ONNX file that it was built from",
    ".ort": "ONNX Runtime's own format. Fix: give the .onnx file that it was made from",
    ".xml": "an OpenVINO model. Fix: give the model that it was converted from",
    ".caffemodel": "a Caffe model. Fix: convert it to ONNX first",
    ".pdmodel": "a Paddle model. Fix: convert it to ONNX with paddle2onnx",
    ".gguf": f"a file of quantized weights. {_LOAD}",
}
"""Suffix: the kind of file, and the fix."""

_TREES = "use a method for trees, such as TreeSHAP, or explain a differentiable model: trees have no gradient"
_JAX = 'export it with jax2onnx.to_onnx(function, [("B", 4)]), and give the result'
_EXPORTERS = {
    "sklearn": "export it with skl2onnx.to_onnx(model, X), and give the result",
    "xgboost": _TREES,
    "lightgbm": _TREES,
    "catboost": _TREES,
    "flax": _JAX,
    "jax": _JAX,
    "jaxlib": _JAX,
    "onnxruntime": "give the path of the .onnx file that the session was made from",
}
"""How to give a model of another library."""


def refusal_of_object(source: object) -> str:
    """Return one line on an object that is not a model, and the fix."""
    kind = type(source)
    library = kind.__module__.partition(".")[0]
    fix = _EXPORTERS.get(library, "give a PyTorch, Keras, TensorFlow or ONNX model, or the path of one")
    if inspect.isroutine(source) and library not in _EXPORTERS:
        fix = (
            "call it in the forward of an nn.Module, or wrap it as tf.function(function), and give that with an "
            "example input"
        )
    if isinstance(source, type):
        return (
            f"expected a model, got the class {source.__name__}. Fix: give an object of it, as in "
            f"{source.__name__}(…)"
        )
    if isinstance(source, (bytes, bytearray)):
        fix = "give onnx.load_from_string(data), where the bytes are an ONNX model"
    if isinstance(source, Mapping):
        fix = (
            "load the weights into the network, as in module.load_state_dict(weights), and give it with an example "
            "input"
        )
    name = kind.__qualname__ if library == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return f"expected a model, got {name}, which onnxplain does not know. Fix: {fix}"


def refusal_of(path: str) -> str | None:
    """Return one line on a file that cannot be converted, and the fix; None for a suffix that is not known."""
    suffix = os.path.splitext(path)[1].lower()
    kind = SUFFIXES.get(suffix)
    if kind is None:
        return None
    names = _members(path)
    if any("/code/" in name or name.startswith("code/") for name in names):
        kind = _SCRIPT
    elif any(name.endswith("archive_format") for name in names):
        kind = (
            "a program saved by torch.export. Fix: rename it to end in .pt2, and load it with trust=True if you trust "
            "its origin"
        )
    return f"{path} is {kind}"


def damage_of(path: str) -> str | None:
    """Return one line, with a fix, on a folder, .keras or HDF5 file that is damaged or no model; None for others."""
    suffix = os.path.splitext(path)[1].lower()
    if os.path.isdir(path):
        if os.path.isfile(os.path.join(path, "saved_model.pb")):
            return None
        return (
            f"{path} is a folder without a saved_model.pb: no SavedModel. Fix: give the path of a model file, or of a "
            "folder that tf.saved_model.save or model.export has written"
        )
    kind = "zip archive" if suffix == ".keras" else "whole HDF5 file"
    if suffix not in (".keras", ".h5", ".hdf5") or (zipfile.is_zipfile if suffix == ".keras" else _is_hdf5)(
        path
    ):
        return None
    return f"{path} is not a Keras model, or damaged: expected a {kind}. Fix: write it again with model.save(path)"


def _is_hdf5(path: str) -> bool:
    """Return whether a file can be opened as HDF5; True where h5py, which comes with Keras, is missing."""
    try:
        import h5py

        with h5py.File(path):
            return True
    except ModuleNotFoundError:
        return True
    except OSError:
        return False


def _members(path: str) -> list[str]:
    """Return the names in a zip archive, without reading its contents."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []
