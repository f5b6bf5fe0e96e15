"""Write files whole or not at all: without a name first, then in place of the destination.

On Linux the new file has no name until it is complete, so that a process that is killed leaves nothing behind.
Elsewhere it is written beside the destination and renamed over it.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

_UNNAMED = getattr(os, "O_TMPFILE", None)


Chunk = bytes | memoryview
"""Bytes, of whatever type Python keeps them in."""


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path`, whole or not at all. Raises OSError with the path."""
    return write_chunks(path, [data])


def write_chunks(path: str | os.PathLike[str], data: Sequence[Chunk]) -> Path:
    """Write all of `data` to `path`, one after another, whole or not at all. Raises OSError with the path."""
    path = Path(path)
    try:
        if not _written_unnamed(path, data):
            _write_beside(path, data)
    except OSError as error:
        if error.errno is None:
            raise
        # Of a full disk, only the write fails, which knows no name.
        raise OSError(error.errno, error.strerror, str(path)) from error
    return path


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))


def _write_beside(path: Path, data: Sequence[Chunk]) -> None:
    """Write under another name and rename."""
    temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        with temporary.open("wb") as file:
            file.writelines(data)
        os.replace(temporary, path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def _written_unnamed(path: Path, data: Sequence[Chunk]) -> bool:
    """Write through a file without a name; False where the system or the file system has none."""
    if _UNNAMED is None:
        return False
    try:
        descriptor = os.open(path.parent, _UNNAMED | os.O_WRONLY, 0o666)
    except OSError:
        # The folder may be missing, or its file system may not know such files: the other way tells.
        return False
    with os.fdopen(descriptor, "wb") as file:
        file.writelines(data)
        file.flush()
        # Given a folder, which an absolute path ignores, Python follows the link to the file itself.
        give_name = partial(os.link, f"/proc/self/fd/{descriptor}", src_dir_fd=descriptor)
        try:
            give_name(path)
        except FileExistsError:
            _replace(path, give_name)
        except OSError:
            # Without /proc a file cannot be given a name.
            return False
    return True


def _replace(path: Path, give_name: Callable[[Path], None]) -> None:
    """Name a file and rename it over another. A process that is killed in between leaves it to the next to remove."""
    temporary = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        temporary.unlink()
    give_name(temporary)
    try:
        os.replace(temporary, path)
    except FileNotFoundError:
        # Another process, which writes the same path, has just put this file there.
        if not path.exists():
            raise
    except OSError:
        temporary.unlink()
        raise


def put_in_place(temporary: Path, path: Path) -> None:
    """Rename a complete file over `path` so that it outlasts a loss of power: its content and its name are synced."""
    _synced(temporary)
    os.replace(temporary, path)
    _synced(path.parent)


def _synced(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        # Windows cannot open a folder.
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
