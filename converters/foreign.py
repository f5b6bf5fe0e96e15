"""Say what to do with files of models that onnxplain does not read, by their suffix.

Pickled files are never loaded: unpickling runs code of the file.
"""

from __future__ import annotations

import os
import zipfile

_LOAD = "Fix: load it in your own code, and give the nn.Module with an example input to onnxplain.convert"
_PICKLED = f"a pickled PyTorch file, and loading one can run its code. {_LOAD}"
_WEIGHTS = "a file of weights without the network"

SUFFIXES = {
    ".pt": _PICKLED,
    ".pth": _PICKLED,
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

_SCRIPT = (
    "a TorchScript archive, which holds no Python code to trace. "
    "Fix: give the nn.Module that was traced or scripted, with an example input, to onnxplain.convert"
)


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


def _members(path: str) -> list[str]:
    """Return the names in a zip archive, without reading its contents."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (OSError, zipfile.BadZipFile):
        return []
