"""Threads and locks that a forked process inherits and cannot use.

A child of a fork has one thread. An inherited object whose threads are gone must not be used. It must not be destroyed
either, since its destructor waits for them. A lock that another thread held stays locked. `survives_fork` keeps such
objects, a `ForkLock` is free in the child, and `loaded_before_fork` names libraries that may have had threads.
"""

from __future__ import annotations

import ctypes
import os
import sys
from threading import RLock
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

_Object = TypeVar("_Object")

_KEPT: WeakSet[Any] = WeakSet()
_LOADED: set[str] = set()


class ForkLock:
    """A reentrant lock, which nobody holds in the child of a fork."""

    def __init__(self) -> None:
        self._lock = RLock()
        _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def renew(self) -> None:
        """Make the lock free, whoever held it in the parent."""
        self._lock = RLock()


_LOCKS: WeakSet[ForkLock] = WeakSet()


def survives_fork(value: _Object) -> _Object:
    """Return an object with native threads, which a child of a fork leaves alone."""
    _KEPT.add(value)
    return value


def loaded_before_fork(library: str) -> bool:
    """Return whether this process is the child of a fork, and its parent had loaded a library."""
    return library in _LOADED


def _in_child() -> None:
    for lock in list(_LOCKS):
        lock.renew()
    for value in list(_KEPT):
        # One reference that is never given back: no destructor runs, at the end of the process neither.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))
    _LOADED.update(sys.modules.keys() & {"torch", "tensorflow"})


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
