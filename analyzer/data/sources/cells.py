"""The cells of a table as values of a model: the bytes of an image, an array of numbers, a path.

From a pyarrow scalar to bytes, an array or a path. Refuses missing values, nested lists of uneven lengths, and paths
that lead out of the folder of the table.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.data.arrow import arrow


class Unreadable(Exception):
    """A cell holds no value of the model, with the reason."""


def is_image(kind: Any) -> bool:
    """Return whether a column holds encoded images: bytes, or a struct of `bytes` and `path` as `datasets` has it."""
    types = arrow().types
    if types.is_struct(kind):
        return {"bytes", "path"} >= {field.name for field in kind} and any(f.name == "bytes" for f in kind)
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def is_nested(kind: Any) -> bool:
    """Return whether a column holds an array for each row."""
    pa = arrow()
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    return _is_list(kind)


def class_names_of(schema: Any, column: str) -> tuple[str, ...] | None:
    """Return the names of the classes that `datasets` stores for a column of numbers; None where it stores none."""
    stored = (schema.metadata or {}).get(b"huggingface")
    try:
        names = json.loads(stored)["info"]["features"][column]["names"] if stored else None
    except (ValueError, KeyError, TypeError):
        return None
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def value_of(cell: Any, folder: Path) -> Any:
    """Return the value of a cell. folder: of the table, where relative paths start. Raises Unreadable."""
    pa = arrow()
    if not cell.is_valid:
        raise Unreadable("the cell is empty (null). Fix: leave the row out, or fill it in")
    kind = cell.type
    if pa.types.is_struct(kind) and is_image(kind):
        content = cell.as_py()
        if content.get("bytes") is not None:
            return content["bytes"]
        return _inside(folder, content.get("path"))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _inside(folder, cell.as_py())
    if isinstance(kind, pa.FixedShapeTensorType):
        return np.array(cell.to_numpy())
    if isinstance(kind, pa.BaseExtensionType):
        cell = cell.value
        kind = cell.type
    return _array(cell) if _is_list(kind) else cell.as_py()


def _is_list(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _array(cell: Any) -> np.ndarray:
    """Nested lists as one array, without a Python object for each number."""
    values, shape = cell.values, [len(cell.values)]
    while True:
        if values.null_count:
            raise Unreadable("the array holds missing values (null). Fix: leave the row out, or fill them in")
        if not _is_list(values.type):
            break
        lengths = {len(one.values) for one in values}
        if len(lengths) > 1:
            raise Unreadable(f"the array has rows of {len(lengths)} lengths. Fix: write rows of one length")
        shape.append(lengths.pop() if lengths else 0)
        values = values.flatten()
    return np.array(values.to_numpy(zero_copy_only=False)).reshape(shape)


def _inside(folder: Path, name: str | None) -> str:
    """A path of a table, which may name files below the table's folder alone: the table may be a stranger's."""
    if not name:
        raise Unreadable("the image has no bytes and no path. Fix: store its bytes")
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise Unreadable(
            f"the path {name!r} leads out of the folder of the table. Fix: store the bytes of the image, or move the "
            "file below the table"
        )
    return str(path)
