"""Read --target: class indices or class names, one for all samples or one for each."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np

from analyzer.cli.options import split_list
from analyzer.cli.terminal import UserError


def parse_target(
    text: str | None, samples: int, classes: int | None, names: Sequence[str] | None
) -> int | np.ndarray | None:
    """None, an int, or an array (N,) of ints.

    classes: how many there are, where the model's shape says so. A name is met whole ("tabby, tabby cat")
    or by one of its synonyms ("tabby cat"), whatever its case. Raises UserError.
    """
    if text is None:
        return None
    if not text.strip():
        raise UserError("--target is empty: give a class index or name")
    whole = _index(text, names)
    if whole is not None:
        return _in_range(whole, classes)
    parts = split_list(text)
    if len(parts) == 1:
        return _in_range(_known(parts[0], names), classes)
    if len(parts) != samples:
        raise UserError(
            f"--target names {len(parts)} classes for {samples} samples: give one, or one for each"
        )
    return np.asarray([_in_range(_known(part, names), classes) for part in parts])


def _known(text: str, names: Sequence[str] | None) -> int:
    index = _index(text, names)
    if index is not None:
        return index
    if names is None:
        raise UserError(f"--target {text}: the model stores no class names; give an index")
    close = difflib.get_close_matches(text.lower(), [name.lower() for name in names], n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    raise UserError(f"--target {text}: the model has no class of that name{hint}")


def _index(text: str, names: Sequence[str] | None) -> int | None:
    """The class that a text names, or None. An exact name wins over a synonym."""
    wanted = text.strip().lower()
    if wanted.removeprefix("-").isdigit():
        return int(wanted)
    if names is None:
        return None
    found = [index for index, name in enumerate(names) if name.lower() == wanted]
    if not found:
        synonyms = (
            (index, {part.strip().lower() for part in name.split(",")}) for index, name in enumerate(names)
        )
        found = [index for index, words in synonyms if wanted in words]
    if len(found) > 1:
        raise UserError(f"--target {text}: several classes have that name, {found}; give an index")
    return found[0] if found else None


def _in_range(index: int, classes: int | None) -> int:
    if index < 0 or (classes is not None and index >= classes):
        known = f"the model has {classes} classes, 0 to {classes - 1}" if classes else "classes count from 0"
        raise UserError(f"--target {index} is out of range: {known}")
    return index
