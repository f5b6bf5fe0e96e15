"""Let one process at a time write: into a folder, whose lock is on the folder itself, or by a lock file.

A lock ends with its process. No file is left where the process ends in order.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Wait until no other process holds the folder, and hold it. Where the system has no such locks, do nothing."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems know no locks.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


_HELD: set[tuple[int, str]] = set()
"""The locks of this process: the system grants a second one to the process that holds the first."""


@contextmanager
def only_holder(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, and remove it at the end. Raises BlockingIOError where another process holds it.

    The lock ends with the process, also where it is killed: a file that was left locks nothing. Where the system has no
    such locks, only this process is guarded.
    """
    key = (os.getpid(), os.path.realpath(path))
    if key in _HELD:
        raise BlockingIOError(errno.EAGAIN, "held by this process", str(path))
    _HELD.add(key)
    try:
        descriptor = _locked(path)
        try:
            yield
        finally:
            # While the lock is held: another process would lock a file without a name.
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)
    finally:
        _HELD.discard(key)


def _locked(path: Path) -> int:
    """Return the descriptor of a lock file that is held. It is not shared with child processes."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, path)
            if _is_named(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        # Its holder has just removed it.
        os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:
        return
    try:
        # A lock of the process: children that outlive a parent that was killed do not hold it.
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise BlockingIOError(errno.EAGAIN, "held by another process", str(path)) from error
        # Some network file systems know no locks.


def _is_named(descriptor: int, path: Path) -> bool:
    """Return whether an open file still has this name."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False
