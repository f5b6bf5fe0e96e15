"""Download "hf://organisation/name" by the package huggingface_hub, which keeps a cache of its own."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

from converters.errors import ConversionError, MissingFramework, one_line

SCHEME = "hf://"
_ADDRESS = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[^/]+))?(/(?P<file>.+\.onnx))?/?")
# Weights of other frameworks and precisions are left there.
_WEIGHTS = ("model.onnx", "model.onnx_data*", "model.onnx.data")
_FILES = ("*.json", "*.txt", *_WEIGHTS, *(f"onnx/{name}" for name in _WEIGHTS))


def downloaded(address: str) -> tuple[Path, str | None]:
    """Return the folder of a repository, and the .onnx file in it that the address names.

    address: hf://organisation/name, with @revision and /path/of/file.onnx where wanted. Raises ConversionError.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or ".." in Path(found["file"] or "").parts:
        raise ConversionError(
            f"{address}: expected hf://organisation/name. Fix: give one, or hf://organisation/name/onnx/FILE.onnx"
        )
    try:
        hub: Any = importlib.import_module("huggingface_hub")
    except ModuleNotFoundError as error:
        raise MissingFramework(
            f"{address} needs huggingface_hub, which is not installed. Fix: pip install huggingface_hub, or give a "
            "folder on this machine"
        ) from error
    file = found["file"]
    patterns = [*_FILES, *([file, f"{file}_data*", f"{file}.data"] if file else [])]
    try:
        folder = hub.snapshot_download(
            found["repository"], revision=found["revision"], allow_patterns=patterns
        )
    except Exception as error:  # the package documents many errors, of the network among them
        raise ConversionError(
            f"{address} cannot be downloaded ({one_line(error, 160)}). Fix: check the name and the network, or give a "
            "folder on this machine"
        ) from error
    return Path(folder), file
