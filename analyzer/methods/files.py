"""Write a result as one .npz file, and read it again. Nothing is pickled; every type in the file is one of ours.

The file holds the arrays under numbers, and one JSON text that says where each belongs. It states the version of the
format; a file of a later version is refused.
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
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.graph.samples.labels import Span
from analyzer.methods.completeness import Completeness
from analyzer.methods.full_gradient.result import Contribution, Terms
from analyzer.methods.result import Attribution
from converters.system.atomic import write_bytes

VERSION = 1
_CONTENT = "content"
_PARTS = {part.__name__: part for part in (Arrangement, Completeness, Contribution, Span)}


def save(result: Attribution, path: str | os.PathLike[str]) -> None:
    """Write a result. Its bias terms are written where they were computed."""
    arrays: dict[str, np.ndarray] = {}
    content = json.dumps({"version": VERSION, "result": _encoded(result, arrays)})
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{_CONTENT: np.array(content)}, **arrays)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())


def load(path: str | os.PathLike[str]) -> Attribution:
    """Read a result that `save` wrote. Raises AnalysisError where the file is not such a result."""
    fix = "Fix: give a file that result.save(path) wrote"
    try:
        with np.load(Path(path), allow_pickle=False) as file:
            content = json.loads(str(file[_CONTENT]))
            arrays = {name: file[name] for name in file.files if name != _CONTENT}
    except OSError as error:
        raise AnalysisError(f"{path}: {error.strerror or 'not an .npz file'}. {fix}") from error
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise AnalysisError(f"{path}: expected the .npz file of a result. {fix}") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != VERSION:
        raise AnalysisError(
            f"{path}: expected version {VERSION} of the format, got {version!r}. Fix: read the file with the release "
            "of onnxplain that wrote it"
        )
    try:
        found = _decoded(content["result"], arrays)
    except (KeyError, TypeError, IndexError) as error:
        raise AnalysisError(f"{path}: expected a result, got other fields. {fix}") from error
    if not isinstance(found, Attribution):
        raise AnalysisError(f"{path}: expected a result, got {type(found).__name__}. {fix}")
    return found


def _results() -> dict[str, type[Attribution]]:
    """The classes of results by name."""
    found, stack = {}, [Attribution]
    while stack:
        one = stack.pop()
        found[one.__name__] = one
        stack += one.__subclasses__()
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
    if isinstance(value, Terms):
        return {"terms": [list(value), _encoded(value.computed, arrays)]}
    if isinstance(value, Mapping):
        return {"map": [[_encoded(key, arrays), _encoded(one, arrays)] for key, one in value.items()]}
    if isinstance(value, frozenset):
        return {"set": sorted(value)}
    if isinstance(value, (list, tuple)):
        return {type(value).__name__: [_encoded(one, arrays) for one in value]}
    assert is_dataclass(value), type(value)
    own = {one.name: _encoded(getattr(value, one.name), arrays) for one in fields(value) if one.init}
    return {"object": type(value).__name__, "fields": own}


def _decoded(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    if "object" in value:
        kinds: Mapping[str, Any] = {**_PARTS, **_results()}
        return kinds[value["object"]](**{key: _decoded(one, arrays) for key, one in value["fields"].items()})
    ((kind, content),) = value.items()
    if kind == "array":
        return arrays[content]
    if kind == "terms":
        return Terms.kept(tuple(content[0]), _decoded(content[1], arrays))
    if kind == "map":
        return {_decoded(key, arrays): _decoded(one, arrays) for key, one in content}
    if kind == "set":
        return frozenset(content)
    return {"list": list, "tuple": tuple}[kind](_decoded(one, arrays) for one in content)
