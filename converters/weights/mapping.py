"""Read the bytes of weights from a file: a part into memory, or mapped, where the file is large.

The size is checked before the file is mapped. A mapped file must stay as it is: `refuse_changed` finds one that was
written since, whose weights would be others, and one that became shorter, which would end the process.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from converters.errors import InvalidModel

MAPPED = 2**30
"""Bytes of a file from which on it is mapped: a smaller one can be written again while it is in use."""


class FileMap(mmap.mmap):
    """The bytes of a file, its descriptor, and its state when it was mapped."""

    path: Path
    descriptor: int
    state: tuple[int, int]

    @classmethod
    def of(cls, path: Path) -> FileMap:
        """Map a file that is not empty."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            found = cls(descriptor, 0, access=mmap.ACCESS_READ)
        except BaseException:
            os.close(descriptor)
            raise
        found.path, found.descriptor = path, descriptor
        found.state = found.now()
        return found

    def now(self) -> tuple[int, int]:
        """Return the size of the file, and the time of its last change."""
        status = os.fstat(self.descriptor)
        return status.st_size, status.st_mtime_ns

    def __del__(self) -> None:
        os.close(self.descriptor)


_MAPS: WeakValueDictionary[tuple[int, int, int, int], FileMap] = WeakValueDictionary()
_MAPPING = threading.Lock()


def mapped(path: Path, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    """Return an array of a part of a file, mapped. The caller has checked that the file holds that part."""
    status = path.stat()
    key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    with _MAPPING:
        found = _MAPS.get(key)
        if found is None:
            found = FileMap.of(path)
            _MAPS[key] = found
    count = int(np.prod(shape, dtype=np.int64))
    if offset + count * dtype.itemsize > found.state[0]:
        raise InvalidModel(f"{path}: the file became shorter while it was read. Fix: load the model again")
    return np.frombuffer(found, dtype, count, offset).reshape(shape)


def maps_of(arrays: Iterable[np.ndarray]) -> tuple[FileMap, ...]:
    """Return the files that arrays are mapped from, each once."""
    return tuple({id(found): found for array in arrays if (found := _map_of(array)) is not None}.values())


def refuse_changed(maps: Iterable[FileMap]) -> None:
    """Raise InvalidModel where one of these files was written since it was mapped."""
    for found in maps:
        if found.now() != found.state:
            raise InvalidModel(
                f"{found.path}: the file was changed while a model that was read from it is in use. Fix: load the "
                "model again, and write other models to other files"
            )


def _map_of(array: np.ndarray) -> FileMap | None:
    base: Any = array
    while base is not None and not isinstance(base, FileMap):
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return base
