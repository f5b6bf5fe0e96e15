"""Read .npy and .npz files of a stranger: nothing is unpickled, and nothing is read that is larger than it can be.

From a path to arrays. Refuses, before any array is read: pickled objects, headers that state more than the file holds,
archives that expand to far more than their size, encrypted and damaged ones. Every refusal is a ValueError of one line.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from converters.errors import one_line

# An archive may expand to this many bytes, or to this many times its size, whichever is more.
EXPANDED = 2**29
EXPANSION = 20
MOST_ARRAYS = 10_000


def load_array(path: Path) -> np.ndarray:
    """Return the array in a .npy file. Raises ValueError."""
    try:
        with path.open("rb") as file:
            if file.read(4) == b"PK\x03\x04":
                raise ValueError("an archive of several arrays, where one .npy array is expected")
            file.seek(0)
            _check_header(file, path.stat().st_size)
            file.seek(0)
            return _read(file)
    # NumPy documents ValueError alone, and raises what its parsers of headers raise.
    except Exception as error:
        raise ValueError(one_line(error, 120)) from error


def load_archive(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays in an .npz file, by name. Raises ValueError."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_sizes(members, path.stat().st_size)
            return {member.filename.removesuffix(".npy"): _member(archive, member) for member in members}
    # zipfile raises RuntimeError for a password, NotImplementedError for a method, and zlib's own errors.
    except Exception as error:
        raise ValueError(one_line(error, 120)) from error


def _check_sizes(members: list[zipfile.ZipInfo], size: int) -> None:
    """Raise ValueError for an archive that states far more bytes than it has."""
    if len(members) > MOST_ARRAYS:
        raise ValueError(f"expected at most {MOST_ARRAYS} arrays, found {len(members)}")
    total, allowed = sum(member.file_size for member in members), max(EXPANDED, EXPANSION * size)
    if total > allowed:
        raise ValueError(
            f"expands from {size} to {total} bytes, more than {allowed}. Fix: save it with np.savez, uncompressed"
        )


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    if not member.filename.endswith(".npy"):
        raise ValueError(f"expected .npy arrays, found {member.filename!r}")
    with archive.open(member) as stream:
        _check_header(stream, member.file_size)
    # A header can be read once from a compressed stream.
    with archive.open(member) as stream:
        return _read(stream)


def _read(stream: IO[bytes]) -> np.ndarray:
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _check_header(stream: IO[bytes], size: int) -> None:
    """Raise ValueError where a .npy header states more bytes than follow it. size: bytes of the header and the data."""
    version = np.lib.format.read_magic(stream)
    readers: dict[tuple[int, int], Any] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"expected a .npy file of version 1.0 or 2.0, found {version[0]}.{version[1]}")
    shape, _, dtype = readers[version](stream)
    if dtype.hasobject:
        raise ValueError("holds pickled objects")
    if not all(type(length) is int and length >= 0 for length in shape) or not dtype.itemsize:
        raise ValueError(f"its header states the shape {shape} of {dtype}")
    stated, left = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if stated > left:
        raise ValueError(f"its header states {stated} bytes, and {left} follow")
