"""Read the JSON files of a folder: inside it alone, and of bounded size."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from converters.errors import InvalidModel

MOST_BYTES = 2**26
"""Bytes of a JSON file: a tokenizer of 250,000 tokens takes half."""
_ITSELF = "or give the path of the .onnx file in another folder"


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file in a folder. Raises InvalidModel where it lies, or points, elsewhere.

    The cache of huggingface_hub keeps files in `blobs` and links to them: these are inside.
    """
    path = folder / name
    roots = [folder.resolve()]
    snapshot = folder.absolute()
    if snapshot.parent.name == "snapshots":
        roots.append((snapshot.parent.parent / "blobs").resolve())
    target = path.resolve()
    if not any(target.is_relative_to(root) for root in roots):
        raise InvalidModel(f"{path} points outside of its folder. Fix: copy the file itself into the folder")
    return path


def read_json(folder: Path, name: str) -> dict[str, Any] | None:
    """Return the object in a JSON file; None where there is no such file. Raises InvalidModel."""
    if not os.path.lexists(folder / name):
        return None
    path = inside(folder, name)
    if not path.is_file():
        raise InvalidModel(f"{path}: expected a file. Fix: write it again, {_ITSELF}")
    if path.stat().st_size > MOST_BYTES:
        raise InvalidModel(
            f"{path}: expected at most {MOST_BYTES} bytes, found {path.stat().st_size}. Fix: write it again, {_ITSELF}"
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidModel(
            f"{path}: expected JSON ({type(error).__name__}). Fix: write it again, {_ITSELF}"
        ) from error
    if not isinstance(found, dict):
        raise InvalidModel(
            f"{path}: expected an object, found {type(found).__name__}. Fix: write it again, {_ITSELF}"
        )
    return found
