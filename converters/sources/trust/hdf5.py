"""Refuse HDF5 files whose weights lie in other files: external links, external storage, virtual datasets.

Reads the structure alone, no weights. HDF5 would follow these references to any path of the machine.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from typing import IO, Any

from converters.sources.trust.refusal import shown, untrusted


def refuse_references(path: str) -> None:
    """Raise UntrustedModel where the weights of a .keras or .h5 file lie in another file."""
    import h5py

    if not path.lower().endswith(".keras"):
        with h5py.File(path, "r") as file:
            _refuse_in(path, file)
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename.endswith(".h5"):
                with _seekable(archive, member) as stream, h5py.File(stream, "r") as file:
                    _refuse_in(path, file)


def _seekable(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> IO[bytes]:
    """A member that can be read in any order at no cost."""
    stream = archive.open(member)
    if member.compress_type == zipfile.ZIP_STORED:
        return stream
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    with stream:
        shutil.copyfileobj(stream, unpacked)
    unpacked.seek(0)
    return unpacked


def _refuse_in(path: str, file: Any) -> None:
    import h5py

    waiting, seen = [file], set()
    while waiting:
        group = waiting.pop()
        for name in group:
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise untrusted(path, f"holds {shown(name)}, a link to weights elsewhere")
            item = group[name]
            if isinstance(item, h5py.Dataset) and (item.external or item.is_virtual):
                raise untrusted(path, f"holds {shown(name)}, whose weights are in another file")
            if isinstance(item, h5py.Group) and hash(item.id) not in seen:
                seen.add(hash(item.id))
                waiting.append(item)
