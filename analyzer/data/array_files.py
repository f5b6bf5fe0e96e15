"""Read .npy and .npz files of a stranger: nothing is unpickled, and nothing is read that is larger than it can be.

From a path to arrays. Refuses, before any array is read: pickled objects, headers that state more than the file holds,
archives that expand to far more than their size, encrypted and damaged ones. Every refusal is a ValueError of one line.
"""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from converters.errors import one_line

# An archive may expand to this many bytes, or to this many times its size, whichever is more.
EXPANDED = 2**29
EXPANSION = 20
MOST_ARRAYS = 10_000
_READERS: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# Of the ZIP format: the bytes of a local header, and the flag of a member with a password.
_LOCAL_HEADER, _ENCRYPTED = 30, 1


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


def map_archive(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays in an .npz file, by name: mapped where they are stored uncompressed, as np.savez writes them.

    Raises ValueError.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED]
            _check_sizes(packed, path.stat().st_size)
            return {
                member.filename.removesuffix(".npy"): _member(archive, member)
                if member in packed
                else _mapped(path, archive, member)
                for member in members
            }
    except Exception as error:  # as for load_archive
        raise ValueError(one_line(error, 120)) from error


def _mapped(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """A member that is stored as it is, mapped."""
    if member.flag_bits & _ENCRYPTED:
        raise ValueError(f"{member.filename!r} is encrypted")
    with archive.open(member) as stream:
        _check_header(stream, member.file_size)
        header = stream.tell()
    with path.open("rb") as file:
        file.seek(member.header_offset)
        fields = file.read(_LOCAL_HEADER)
        # The lengths of the name and of the extra field, which the central directory may state otherwise.
        name, extra = struct.unpack("<HH", fields[-4:])
        start = member.header_offset + _LOCAL_HEADER + name + extra
        file.seek(start)
        version = np.lib.format.read_magic(file)
        shape, fortran, dtype = _READERS[version](file)
    order: Literal["F", "C"] = "F" if fortran else "C"
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", start + header, shape, order)


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
    if version not in _READERS:
        raise ValueError(f"expected a .npy file of version 1.0 or 2.0, found {version[0]}.{version[1]}")
    shape, _, dtype = _READERS[version](stream)
    if dtype.hasobject:
        raise ValueError("holds pickled objects")
    if not all(type(length) is int and length >= 0 for length in shape) or not dtype.itemsize:
        raise ValueError(f"its header states the shape {shape} of {dtype}")
    stated, left = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if stated > left:
        raise ValueError(f"its header states {stated} bytes, and {left} follow")
