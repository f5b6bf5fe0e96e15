"""Import a framework when it is first needed; name the extra where it is missing."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from converters.errors import MissingFramework
from converters.system.extras import install
from converters.system.quiet import quiet

_EXTRAS = {"torch": "torch", "tensorflow": "tensorflow", "keras": "tensorflow", "tf2onnx": "tensorflow"}


def import_framework(
    name: str, *, needed_by: str = "this model", error: type[ImportError] = MissingFramework
) -> Any:
    """Import torch, tensorflow, keras or tf2onnx.

    needed_by: who needs it, for the message.
    error: the exception to raise where it is not installed; its message has the command that installs it.
    """
    try:
        # TensorFlow greets on standard error while it is loaded, before any setting of its own can be made.
        if name != "torch" and name not in sys.modules:
            with quiet("tensorflow", "tf2onnx", "absl", native=True):
                return importlib.import_module(name)
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.partition(".")[0] != name:
            raise
        raise error(
            f"{needed_by} needs {name}, which is not installed. Fix: {install(_EXTRAS[name])}"
        ) from missing
