"""Check, run and write explainer files.

A protobuf holds at most 2 GB. Weights beyond that go to a second file beside the model.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import onnx

from analyzer.errors import ExportError
from converters.errors import one_line
from converters.system.atomic import write_bytes

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MOST_BYTES = 2**31 - 2**24
"""Of a model in one file."""


def check_file(proto: onnx.ModelProto) -> None:
    """Check a model by the rules of ONNX, with strict shape inference. Raises ExportError."""
    try:
        if proto.ByteSize() <= MOST_BYTES:
            onnx.checker.check_model(proto, full_check=True)
            return
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            _save_apart(proto, path)
            onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"the file does not pass the checker of ONNX ({one_line(error, 300)}). Fix: report the model as a defect "
            "of onnxplain"
        ) from error


def session_of(proto: onnx.ModelProto) -> InferenceSession:
    """Return a session as users make it, with the default optimisations, and without its remarks.

    Raises ExportError where ONNX Runtime does not take the model.
    """
    # Imported here: the command line divides into processes first, which a loaded runtime does not survive.
    import onnxruntime as ort

    options = ort.SessionOptions()
    # Optional inputs are remarked on at each start.
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        source: bytes | str = str(path)
        if proto.ByteSize() <= MOST_BYTES:
            source = proto.SerializeToString()
        else:
            _save_apart(proto, path)
        try:
            return ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # The classes of ONNX Runtime's errors have no common base.
            raise ExportError(
                f"ONNX Runtime does not take the file ({one_line(error)}). Fix: export the model in float32, or "
                "report it as a defect of onnxplain"
            ) from error


def write_model(proto: onnx.ModelProto, path: Path) -> int:
    """Write a model whole or not at all, and return its bytes. Raises OSError with the path."""
    if proto.ByteSize() <= MOST_BYTES:
        data = proto.SerializeToString()
        write_bytes(path, data)
        return len(data)
    folder = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    folder.mkdir()
    try:
        _save_apart(proto, folder / path.name)
        weights = f"{path.name}.data"
        size = sum(one.stat().st_size for one in folder.iterdir())
        # The weights first: a model file is never without them.
        os.replace(folder / weights, path.parent / weights)
        os.replace(folder / path.name, path)
        return size
    finally:
        for one in folder.iterdir():
            with suppress(OSError):
                one.unlink()
        folder.rmdir()


def _save_apart(proto: onnx.ModelProto, path: Path) -> None:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    onnx.save_model(copy, path, save_as_external_data=True, location=f"{path.name}.data")
