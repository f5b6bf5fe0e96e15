"""Sources of samples: files, arrays, tables and Python objects.

From a path or an object to a Source. `open_source` chooses the kind by the suffix, and of a folder by its files.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from analyzer.data.sources import arrays, files, items, tables
from analyzer.data.sources.base import Record, Source
from analyzer.errors import InputError
from analyzer.images.folders import SUFFIXES, natural
from analyzer.types import as_array

__all__ = ["Record", "Source", "open_source"]

_KINDS = "a folder of images, a pattern, a .txt file of paths, or a .npy, .npz, .parquet or .arrow file"
_LISTS = frozenset({".txt", ".lst", ".list"})


def open_source(
    source: Any, inputs: Sequence[str], *, label: str | None = None, column: str | None = None
) -> Source:
    """Return the samples of a path or an object.

    inputs: the names of the model's inputs. label: the column of labels, of tables, .npz files and mappings.
    column: that of the model's only input. Raises InputError for what is no source, or lacks an input.
    """
    if isinstance(source, (str, os.PathLike)):
        return _of_path(os.path.expanduser(os.fspath(source)), inputs, label, column)
    items.refuse_batches(source)
    if isinstance(source, Mapping):
        found = {str(name): as_array(value) for name, value in source.items()}
        return arrays.named("arrays", "arrays", "", found, inputs, label)
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        return arrays.named("arrays", "array", "", {inputs[0]: as_array(source)}, inputs, None)
    if (
        isinstance(source, (list, tuple))
        and source
        and all(isinstance(s, (str, os.PathLike)) for s in source)
    ):
        return files.listed(source, _only(inputs, "a list of files"))
    if hasattr(source, "__len__") and hasattr(source, "__getitem__") and not items.is_stream(source):
        if not len(source):
            raise InputError("the data set has no item. Fix: give at least one sample")
        return items.Numbered(source, inputs, label, column)
    if isinstance(source, Iterable):
        return items.Stream(source, inputs, label, column)
    raise InputError(
        f"expected a source of samples, got {type(source).__name__}. Fix: give {_KINDS}, or an iterable"
    )


def _of_path(text: str, inputs: Sequence[str], label: str | None, column: str | None) -> Source:
    path = Path(text)
    if path.is_dir():
        return _of_folder(path, inputs, label, column)
    if not path.exists():
        if not glob.has_magic(text):
            raise InputError(f"{text}: no such file or folder. Fix: give {_KINDS}")
        found = sorted((Path(one) for one in glob.glob(text, recursive=True)), key=natural)
        kinds = [one for one in found if one.suffix.lower() in tables.SUFFIXES]
        if kinds and not any(one.suffix.lower() in files.SAMPLES for one in found):
            return tables.Tables(kinds, text, inputs, label, column)
        return files.matched(text, _only(inputs, text))
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return arrays.mapped(path, inputs)
    if suffix == ".npz":
        return arrays.archived(path, inputs, label)
    if suffix in tables.SUFFIXES:
        return tables.Tables([path], text, inputs, label, column)
    if suffix in _LISTS:
        return files.text_file(path, _only(inputs, text))
    if suffix in SUFFIXES:
        return files.listed([path], _only(inputs, text))
    raise InputError(f"{text}: not a source of samples. Fix: give {_KINDS}")


def _of_folder(path: Path, inputs: Sequence[str], label: str | None, column: str | None) -> Source:
    """A folder of tables where it holds no images: as `datasets` saves one, data-00000-of-00002.arrow."""
    inside = sorted((one for one in path.iterdir() if not one.name.startswith(".")), key=natural)
    found = [one for one in inside if one.is_file() and one.suffix.lower() in tables.SUFFIXES]
    if found and not any(one.suffix.lower() in SUFFIXES or one.is_dir() for one in inside):
        return tables.Tables(found, str(path), inputs, label, column)
    return files.folder(path, _only(inputs, str(path)))


def _only(inputs: Sequence[str], what: str) -> str:
    if len(inputs) != 1:
        raise InputError(
            f"{what}: the model has {len(inputs)} inputs ({', '.join(inputs)}), and a file is one sample of one "
            "input. Fix: give an .npz or a Parquet file with a column for each"
        )
    return inputs[0]
