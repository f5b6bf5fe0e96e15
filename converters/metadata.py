"""Check the preprocessing and the class names in a model's metadata, before they size an array or are printed.

Reads the JSON text of a Preprocessing, or of class names. Returns them, or says what is out of
range.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

MOST_SIDE = 2**13
"""The longest side of a model's image, in pixels."""
MOST_AREA = 2**25
"""The most pixels of a model's image: 384 MiB as floats."""
FITS = ("crop", "stretch", "pad")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
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
    "resize": (lambda value: value is None or _is_side(value), f"null, or a number from 1 to {MOST_SIDE}"),
}
