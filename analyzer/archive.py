"""Write objects of ours as one .npz file, and read them again. Nothing is pickled; every type in a file is one of ours.

The file holds the arrays under numbers, and one JSON text that says where each belongs. It states the version of the
format; a file of another version is refused. An object with `archived()` is kept as what that returns, and made again
by its class's `from_archive`; dataclasses are kept by their fields.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.errors import AnalysisError
from converters.system.atomic import write_bytes

VERSION = 1
_CONTENT = "content"


def save(value: Any, path: str | os.PathLike[str]) -> None:
    """Write an object, whole or not at all."""
    arrays: dict[str, np.ndarray] = {}
    content = json.dumps({"version": VERSION, "value": _encoded(value, arrays)})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{_CONTENT: np.array(content)}, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def load(path: str | os.PathLike[str], kinds: Mapping[str, Any], expected: type) -> Any:
    """Read an object that `save` wrote.

    kinds: {name: class} of all objects that may occur in the file.
    expected: the class of the object itself.
    Raises AnalysisError where the file is not such an object.
    """
    what = expected.__name__
    fix = f"Fix: give a file that {what}.save wrote"
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            content = json.loads(str(file[_CONTENT]))
            arrays = {name: file[name] for name in file.files if name != _CONTENT}
    except OSError as error:
        raise AnalysisError(f"{path}: {error.strerror or 'not an .npz file'}. {fix}") from error
    except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise AnalysisError(f"{path}: expected an .npz file that {what}.save wrote. {fix}") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise AnalysisError(
            f"{path}: expected version {VERSION} of the format, got {version!r}. Fix: read the file with the release "
            "of onnxplain that wrote it"
        )
    try:
        found = _decoded(content["value"], arrays, kinds)
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise AnalysisError(f"{path}: the fields are not those of {what}. {fix}") from error
    if not isinstance(found, expected):
        raise AnalysisError(f"{path}: expected an object of {what}, got one of {type(found).__name__}. {fix}")
    return found


def _encoded(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """A value as JSON; its arrays go to `arrays` under numbers."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        name = f"a{len(arrays)}"
        arrays[name] = np.asarray(value)
        return {"array": name}
    if hasattr(value, "archived"):
        return {"made": type(value).__name__, "of": _encoded(value.archived(), arrays)}
    if isinstance(value, Mapping):
        return {"map": [[_encoded(key, arrays), _encoded(one, arrays)] for key, one in value.items()]}
    if isinstance(value, frozenset):
        return {"set": sorted(value)}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_encoded(one, arrays) for one in value]}
    assert is_dataclass(value), type(value)
    own = {one.name: _encoded(getattr(value, one.name), arrays) for one in fields(value) if one.init}
    return {"object": type(value).__name__, "fields": own}


def _decoded(value: Any, arrays: Mapping[str, np.ndarray], kinds: Mapping[str, Any]) -> Any:
    if not isinstance(value, dict):
        return value
    if "object" in value:
        own = {key: _decoded(one, arrays, kinds) for key, one in value["fields"].items()}
        return kinds[value["object"]](**own)
    if "made" in value:
        return kinds[value["made"]].from_archive(_decoded(value["of"], arrays, kinds))
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "map":
        return {_decoded(key, arrays, kinds): _decoded(one, arrays, kinds) for key, one in content}
    if kind == "set":
        return frozenset(content)
    return {"list": list, "tuple": tuple}[kind](_decoded(one, arrays, kinds) for one in content)
