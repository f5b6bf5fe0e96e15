"""Image files as samples: a folder with a sub-folder for each class, a pattern, a list, or a text file of paths.

A file with the suffix .npy is one sample as an array. Files are read when their sample is explained, so that a missing
or damaged one is an error of that sample alone.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.data.sources.base import Record, fingerprint
from analyzer.errors import InputError, note
from analyzer.images.files import FORMATS
from analyzer.images.folders import SUFFIXES, natural
from converters.errors import one_line

ARRAY = ".npy"
SAMPLES = SUFFIXES | {ARRAY}
_SYSTEM = frozenset({"thumbs.db", "desktop.ini"})


class Files:
    """Samples that are a file each. paths, ids and labels have an entry for each; where: told in the manifest."""

    columns: tuple[str, ...]
    label_names: tuple[str, ...] | None = None
    stacked = False

    def __init__(
        self,
        kind: str,
        column: str,
        where: str,
        paths: Sequence[str],
        ids: Sequence[str],
        labels: Sequence[str | None] | None = None,
    ) -> None:
        self.kind, self.columns, self.where = kind, (column,), where
        self.paths, self.ids, self.labels = paths, ids, labels
        self.samples: int | None = len(paths)

    def described(self) -> dict[str, Any]:
        """Return the kind, the place, and a hash of the ids."""
        identity = {"kind": self.kind, "samples": self.samples, "ids": fingerprint(self.ids)}
        return {"identity": identity, "path": self.where}

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """Yield the samples of these positions."""
        (column,) = self.columns
        for position in range(start, min(stop, len(self.paths))):
            path, label = self.paths[position], None if self.labels is None else self.labels[position]
            try:
                value = _array(path) if path.lower().endswith(ARRAY) else path
                yield Record({column: value}, self.ids[position], label)
            except ValueError as error:
                yield Record({}, self.ids[position], label, f"{path}: {error}")


def folder(root: Path, column: str) -> Files:
    """Return the images below a folder, in natural order. The label of an image is its first sub-folder.

    Raises InputError where there is no image.
    """
    found: list[Path] = []
    skipped: list[Path] = []
    for path in _below(root):
        (found if path.suffix.lower() in SAMPLES else skipped).append(path)
    # Arrays next to images are most likely results or labels.
    if images := [path for path in found if path.suffix.lower() != ARRAY]:
        skipped += [path for path in found if path.suffix.lower() == ARRAY]
        found = images
    if not found:
        raise InputError(
            f"{root}: expected a folder with images ({', '.join(FORMATS)}), found none. Fix: give a folder with "
            "images or class folders, or the path of a .npy, .npz, .parquet or .arrow file"
        )
    if skipped:
        names = ", ".join(path.name for path in skipped[:3])
        note(f"{root}: took the images, and skipped {len(skipped)} other files, such as {names}")
    ids = [path.relative_to(root).as_posix() for path in found]
    labels = [path.relative_to(root).parts[0] if path.parent != root else None for path in found]
    return Files("folder", column, str(root), [str(path) for path in found], ids, labels)


def matched(pattern: str, column: str) -> Files:
    """Return the files that match a pattern, in natural order. Raises InputError where none does."""
    paths = sorted((Path(one) for one in glob.glob(pattern, recursive=True)), key=natural)
    found = [str(path) for path in paths if path.is_file() and path.suffix.lower() in SAMPLES]
    if not found:
        names = f"only {', '.join(path.name for path in paths[:3])}" if paths else "no file"
        raise InputError(
            f"{pattern}: expected a pattern that matches images ({', '.join(FORMATS)}) or tables, it matches {names}. "
            "Fix: correct the pattern, which starts at the current folder"
        )
    return Files("pattern", column, pattern, found, found)


def listed(paths: Sequence[Any], column: str) -> Files:
    """Return the files of a list of paths."""
    names = [os.fspath(path) for path in paths]
    return Files("list", column, f"{len(names)} paths", [os.path.expanduser(name) for name in names], names)


def text_file(path: Path, column: str) -> Files:
    """Return the files that a text file names, one a line, with a label after a tab where there is one.

    Relative paths start at the folder of the text file; at the current folder where the first one only exists there.
    Raises InputError for a file without a path, or not in UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a readable text file ({one_line(error)}). Fix: write one path a line, in UTF-8"
        ) from error
    rows = [line.rstrip("\r\n").partition("\t") for line in lines if line.strip()]
    if not rows:
        raise InputError(f"{path}: expected a path a line, the file is empty. Fix: write one path a line")
    ids = [name.strip() for name, _, _ in rows]
    base = path.parent
    if not (base / ids[0]).exists() and Path(ids[0]).exists():
        base = Path()
    labels = [label.strip() or None for _, _, label in rows]
    paths = [str(base / os.path.expanduser(name)) for name in ids]
    return Files("text file", column, str(path), paths, ids, labels if any(labels) else None)


def _below(root: Path) -> list[Path]:
    """All files below a folder, those of a folder before those of its sub-folders; links that lead upward are left."""
    found: list[Path] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(
            (one for one in folders if not one.startswith(".")), key=lambda name: natural(Path(name))
        )
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        names = sorted(
            (one for one in files if not one.startswith(".") and one.lower() not in _SYSTEM),
            key=lambda name: natural(Path(name)),
        )
        found += [Path(place, name) for name in names]
    return found


def _array(path: str) -> np.ndarray:
    """The array of a .npy file. Raises ValueError."""
    from analyzer.data.array_files import load_array

    return load_array(Path(path))
