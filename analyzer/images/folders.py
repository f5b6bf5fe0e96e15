"""Find the image files that a path, a folder or a pattern names, in natural order: img2 before img10.

Refuses, naming it: a path that does not exist, a pattern without a match, a folder without an image.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from analyzer.errors import InputError, note
from analyzer.images.files import FORMATS

SUFFIXES = frozenset(
    {
        *(".bmp", ".dib", ".gif", ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff", ".webp"),
    }
)
"""Suffixes of the formats that are read."""
# What systems leave in folders.
_OF_SYSTEMS = frozenset({"thumbs.db", "desktop.ini"})
_SHOWN = 3


def files_of(source: str | os.PathLike[str], kinds: Sequence[Collection[str]] = (SUFFIXES,)) -> list[Path]:
    """Return the files of one path: itself, those of a folder, or those that match a pattern such as "photos/*.jpg".

    kinds: sets of suffixes; the first set of which a folder or a pattern has files is taken, and a Note names the
    others. A path that exists is not a pattern, whatever characters it holds. Raises InputError.
    """
    text = os.path.expanduser(os.fspath(source))
    path = Path(text)
    if path.is_dir():
        found = list(path.iterdir())
        chosen = _chosen(text, [one for one in found if not one.name.startswith(".")], kinds)
        if not chosen:
            raise InputError(_without_images(text, found))
        return chosen
    if path.exists() or not glob.has_magic(text):
        _refuse_missing(path)
        return [path]
    found = [Path(one) for one in glob.glob(text, recursive=True)]
    if not (chosen := _chosen(text, found, kinds)):
        named = f"only {_listed(found)}" if found else "no file"
        raise InputError(
            f"{text}: expected a pattern that matches images ({', '.join(FORMATS)}), it matches {named}. Fix: correct "
            "the pattern, which starts at the current folder"
        )
    return chosen


def natural(path: Path) -> tuple[str | int, ...]:
    """Return the key that sorts paths with numbers by their value."""
    return tuple(
        int(part) if index % 2 else part for index, part in enumerate(re.split(r"(\d+)", str(path).lower()))
    )


def _chosen(source: str, found: Iterable[Path], kinds: Sequence[Collection[str]]) -> list[Path]:
    """The files of the first kind that there is, in natural order; a Note names the others."""
    files = sorted((path for path in found if path.is_file()), key=natural)
    of_kind = ([path for path in files if path.suffix.lower() in suffixes] for suffixes in kinds)
    chosen = next(filter(None, of_kind), [])
    left = [path for path in files if path not in chosen and path.name.lower() not in _OF_SYSTEMS]
    if chosen and left:
        what = "images" if chosen[0].suffix.lower() in SUFFIXES else "arrays"
        note(f"{source}: took the {what}, and skipped {_listed(left)}")
    return chosen


def _without_images(folder: str, found: list[Path]) -> str:
    """Return why a folder gives no image, and a fix."""
    expected = f"{folder}: expected a folder with images ({', '.join(FORMATS)})"
    shown = [path for path in found if not path.name.startswith(".")]
    inside = [path for path in shown if path.is_dir()]
    if not shown:
        return f"{expected}, the folder is empty. Fix: give a folder with images, or their paths"
    if inside and len(inside) == len(shown):
        pattern = os.path.join(folder, "**", "*.jpg")
        return f"{expected}, found only folders, {_listed(inside)}. Fix: give one of them, or the pattern {pattern!r}"
    return f"{expected}, found {_listed(shown)}. Fix: give a folder with images, or convert the files to .png"


def _listed(paths: list[Path]) -> str:
    names = [path.name for path in sorted(paths, key=natural)]
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest


def _refuse_missing(path: Path) -> None:
    if not path.exists():
        raise InputError(
            f"{path}: no such file. Fix: give the path of an existing file or folder, or a pattern such as "
            "'photos/*.jpg'"
        )
