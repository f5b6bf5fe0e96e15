"""Check the preprocessing, class names and fixed inputs in a model's metadata, before they are used or printed.

Reads the JSON text of each. Returns them, or says what is out of range.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

CONSTANTS_KEY = "onnxplain.constants"
MOST_SIDE = 2**13
"""The longest side of a model's image, in pixels."""
MOST_AREA = 2**25
"""The most pixels of a model's image: 384 MiB as floats."""
ROUNDINGS = ("nearest", "down", "torchvision")
MOST_TEXT = 2**20
"""Characters of another tool's metadata."""
FITS = ("crop", "stretch", "pad")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos", "linear")
_LEAST, _MOST = 1e-6, 1e6


def parse_preprocessing(text: str) -> dict[str, Any]:
    """Return the fields of a stored Preprocessing, lists as tuples. Raises ValueError, with the fault on one line."""
    stored = _json(text)
    if not isinstance(stored, dict):
        raise ValueError(f"expected an object, found {type(stored).__name__}")
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    _check(fields)
    return fields


def parse_class_names(text: str) -> tuple[str, ...]:
    """Return the stored class names. Raises ValueError, with the fault on one line."""
    stored = _json(text)
    if not isinstance(stored, list):
        raise ValueError(f"expected a list of names, found {type(stored).__name__}")
    for name in stored:
        if not isinstance(name, str):
            raise ValueError(f"expected names that are texts, found {repr(name)[:60]}")
    return tuple(stored)


def constants_text(constants: Mapping[str, np.ndarray]) -> str:
    """Return fixed inputs as JSON: their type, shape and values; one value where all are equal."""
    found = {}
    for name, array in constants.items():
        values = array.astype(np.float64) if array.dtype == ml_dtypes.bfloat16 else array
        flat = values.reshape(-1).tolist()
        value = flat[0] if flat and all(one == flat[0] for one in flat) else values.tolist()
        kind = "text" if array.dtype.kind == "O" else array.dtype.name
        found[name] = {"type": kind, "shape": list(array.shape), "value": value}
    return json.dumps(found)


def parse_constants(text: str) -> dict[str, np.ndarray]:
    """Return the stored inputs that are fixed, as arrays. Raises ValueError, with the fault on one line."""
    stored = _json(text)
    if not isinstance(stored, dict):
        raise ValueError(f"expected an object, found {type(stored).__name__}")
    return {name: _constant(name, entry) for name, entry in stored.items()}


def _constant(name: str, entry: Any) -> np.ndarray:
    fields = entry if isinstance(entry, dict) and entry.keys() >= {"type", "shape", "value"} else None
    shape = [] if fields is None else fields["shape"]
    if fields is None or not isinstance(shape, list) or not all(type(size) is int for size in shape):
        raise ValueError(f"expected type, shape and value of {name[:40]!r}, found {repr(entry)[:60]}")
    try:
        dtype = np.dtype(object if fields["type"] == "text" else fields["type"])
        array = np.asarray(fields["value"], dtype)
        # A number stands for all elements, which need no memory.
        return np.broadcast_to(array, shape) if array.ndim == 0 else array.reshape(shape)
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ValueError(f"expected values of {name[:40]!r} of shape {shape}, found others") from error


def foreign_class_names(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    """Return the class names that Ultralytics stores, "{0: 'person', …}"; None where there are none.

    Only literals of bounded size are read; nothing is evaluated.
    """
    text = metadata.get("names", "")
    if not text or len(text) > MOST_TEXT or not {"stride", "task", "imgsz"} & metadata.keys():
        return None
    found = _literal(text)
    if isinstance(found, dict) and set(found) == set(range(len(found))):
        found = [found[index] for index in range(len(found))]
    names = isinstance(found, list) and found and all(isinstance(name, str) and name for name in found)
    return tuple(found) if names else None


def foreign_preprocessing(
    metadata: Mapping[str, str], shape: Sequence[int | None] | None
) -> dict[str, Any] | None:
    """Return the fields of a Preprocessing that Ultralytics' metadata state; None where they state none.

    shape: of the model's first input, for a file that does not state its size. A classifier is fed the centre of the
    image; other networks the whole image, with grey around it.
    """
    if "names" not in metadata or "stride" not in metadata or shape is None or len(shape) != 4:
        return None
    size = _literal(metadata.get("imgsz", "None"))
    sides = tuple(size) if isinstance(size, (list, tuple)) else (size, size)
    stated = tuple(shape[2:])
    fields: dict[str, Any] = {
        "size": sides if None not in sides else stated,
        "interpolation": "linear",
        "fit": "pad",
    }
    if metadata.get("task") == "classify":
        fields |= {"interpolation": "bilinear", "fit": "crop", "resize": fields["size"][0]}
        fields["rounding"] = "torchvision"
    try:
        _check(fields)
    except ValueError:
        return None
    # A file exported for one size takes no other.
    fits = all(side is None or side == own for side, own in zip(stated, fields["size"], strict=True))
    return fields if fits else None


def _literal(text: str) -> Any:
    """The value of a Python literal; None for another text."""
    try:
        return ast.literal_eval(text) if len(text) <= MOST_TEXT else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"expected JSON, found {text[:40]!r}") from error


def _check(fields: Mapping[str, Any]) -> None:
    """Raise ValueError, naming the field, where a Preprocessing makes no sense."""
    if "size" not in fields:
        raise ValueError("expected a size, found none")
    for key, value in fields.items():
        if key not in _FIELDS:
            raise ValueError(f"expected the fields {', '.join(_FIELDS)}, found {key[:40]!r}")
        fits, wanted = _FIELDS[key]
        if not fits(value):
            raise ValueError(f"expected {key} to be {wanted}, found {repr(value)[:60]}")


def _is_side(value: object) -> bool:
    return type(value) is int and 1 <= value <= MOST_SIDE


def _is_size(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(_is_side(side) for side in value)
        and value[0] * value[1] <= MOST_AREA
    )


def _are_channels(value: object, fits: Callable[[float], bool]) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) in (1, 3, 4)
        and all(type(one) in (int, float) and fits(one) for one in value)
    )


_FIELDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "size": (_is_size, f"(height, width), each from 1 to {MOST_SIDE}, of at most {MOST_AREA} pixels"),
    "mean": (
        lambda value: _are_channels(value, lambda one: abs(one) <= _MOST),
        "1, 3 or 4 finite numbers of pixels in [0, 1]",
    ),
    "std": (
        lambda value: _are_channels(value, lambda one: _LEAST <= one <= _MOST),
        f"1, 3 or 4 numbers from {_LEAST:g} to {_MOST:g}",
    ),
    "layout": (lambda value: value in ("NCHW", "NHWC"), "NCHW or NHWC"),
    "fit": (lambda value: value in FITS, f"one of {', '.join(FITS)}"),
    "interpolation": (lambda value: value in INTERPOLATIONS, f"one of {', '.join(INTERPOLATIONS)}"),
    "rounding": (lambda value: value in ROUNDINGS, f"one of {', '.join(ROUNDINGS)}"),
    "resize": (lambda value: value is None or _is_side(value), f"null, or a number from 1 to {MOST_SIDE}"),
}
