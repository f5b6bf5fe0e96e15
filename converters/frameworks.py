"""Import a framework when it is first needed; name the extra where it is missing."""

from __future__ import annotations

import importlib
from typing import Any

from converters.errors import MissingFramework

_EXTRAS = {"torch": "torch", "tensorflow": "tensorflow", "keras": "tensorflow", "tf2onnx": "tensorflow"}


def import_framework(name: str) -> Any:
    """Import torch, tensorflow, keras or tf2onnx. Raises MissingFramework with the command that installs it."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != name:
            raise
        raise MissingFramework(
            f'{name} is needed for this model and is not installed: pip install "onnxplain[{_EXTRAS[name]}]"'
        ) from error
