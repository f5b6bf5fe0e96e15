"""Arrays as samples along axis 0: a .npy file that stays on the disk, an .npz file, arrays in memory.

Of an .npz file and of several arrays, those with the names of the model's inputs are taken, and `label`, where there is
one. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.data.sources.base import Label, Record, fingerprint
from analyzer.errors import InputError
from converters.errors import one_line

LABEL, ID = "label", "id"


class ArrayRows:
    """Rows of arrays of equal length. name: told in ids, such as "x.npy"; ids: an array of them, where there is one."""

    label_names: tuple[str, ...] | None = None
    stacked = True

    def __init__(
        self,
        kind: str,
        name: str,
        where: str,
        arrays: Mapping[str, np.ndarray],
        labels: np.ndarray | None = None,
        ids: np.ndarray | None = None,
    ) -> None:
        self.kind, self.name, self.where, self.arrays = kind, name, where, arrays
        self.columns = tuple(arrays)
        self.labels, self.ids = labels, ids
        named = {
            **arrays,
            **({} if labels is None else {LABEL: labels}),
            **({} if ids is None else {ID: ids}),
        }
        counts = {column: array.shape[0] if array.ndim else 0 for column, array in named.items()}
        if len(set(counts.values())) > 1:
            raise InputError(
                f"{name}: its arrays have different numbers of rows, {counts}. Fix: give each as many"
            )
        self.samples: int | None = next(iter(counts.values()))
        if not self.samples:
            raise InputError(
                f"{name}: holds no sample. Fix: give an array whose first axis is that of the samples, with at least "
                "one row"
            )

    def described(self) -> dict[str, Any]:
        """Return the kind, the place, the shapes and types."""
        parts = [(column, array.shape, str(array.dtype)) for column, array in self.arrays.items()]
        identity = {"kind": self.kind, "samples": self.samples, "arrays": fingerprint(parts)}
        return {"identity": identity, "path": self.where}

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """Yield the rows of these positions."""
        assert self.samples is not None
        for row in range(start, min(stop, self.samples)):
            # A copy: the row of a mapped file is read now.
            values = {column: np.array(array[row]) for column, array in self.arrays.items()}
            yield Record(values, self._id(row), None if self.labels is None else label_of(self.labels[row]))

    def _id(self, row: int) -> str:
        return f"{self.name}[{row}]" if self.ids is None else str(self.ids[row])


def mapped(path: Path, inputs: Sequence[str]) -> ArrayRows:
    """Return the rows of a .npy file, which is mapped and not read as a whole. Raises InputError."""
    if len(inputs) != 1:
        raise InputError(
            f"{path}: the model has {len(inputs)} inputs ({', '.join(inputs)}), the file holds one array. Fix: give "
            "an .npz file with an array for each"
        )
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's parsers of headers raise many types
        raise InputError(
            f"{path}: not a readable .npy file of numbers ({one_line(error, 120)}). Fix: write it with np.save(path, "
            "array)"
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path}: an archive of several arrays. Fix: give it the suffix .npz")
    return ArrayRows("npy", path.name, str(path), {inputs[0]: array})


def archived(path: Path, inputs: Sequence[str], label: str | None) -> ArrayRows:
    """Return the rows of the arrays of an .npz file. Raises InputError."""
    from analyzer.data.array_files import map_archive

    try:
        arrays = map_archive(path)
    except ValueError as error:
        raise InputError(
            f"{path}: not a readable .npz file of numbers ({error}). Fix: write it with np.savez(path, name=array)"
        ) from error
    return named("npz", path.name, str(path), arrays, inputs, label)


def named(
    kind: str,
    name: str,
    where: str,
    arrays: Mapping[str, np.ndarray],
    inputs: Sequence[str],
    label: str | None,
) -> ArrayRows:
    """Return the rows of the arrays that have the names of the inputs. Raises InputError for one that is missing."""
    key = label or LABEL
    if label is not None and label not in arrays:
        raise InputError(
            f"{name}: has no array {label!r}, but {', '.join(arrays)}. Fix: give label= another name"
        )
    rest = [one for one in arrays if one not in (key, ID)]
    if len(inputs) == 1 and inputs[0] not in arrays and len(rest) == 1:
        found = {inputs[0]: arrays[rest[0]]}
    elif missing := [one for one in inputs if one not in arrays]:
        raise InputError(
            f"{name}: has the arrays {', '.join(arrays)}, but the model's inputs are {', '.join(inputs)}. Fix: name "
            f"the arrays so, as in np.savez(path, {missing[0]}=array)"
        )
    else:
        found = {one: arrays[one] for one in inputs}
    labels = None if key in found else arrays.get(key)
    return ArrayRows(kind, name, where, found, labels, None if ID in found else arrays.get(ID))


def label_of(value: Any) -> Label:
    """Return a label as a text or a number; None for anything else, such as a mask."""
    if hasattr(value, "numpy") and getattr(value, "ndim", 1) == 0:
        value = value.numpy()
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return value
