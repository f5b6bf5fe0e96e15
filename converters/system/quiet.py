"""Silence the exporters while they work: their prints, their log lines, their warnings.

What they raise still comes out; nothing else of a conversion belongs on the user's screen. Streams, warning filters
and loggers belong to the whole process: they are replaced once, however many conversions run at a time, and put back
when the last one ends. The prints of other threads and tasks pass through meanwhile.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from contextvars import ContextVar
from functools import partial
from typing import Any

from converters.system.forks import ForkLock

_silent: ContextVar[bool] = ContextVar("silent", default=False)
_LOCK = ForkLock()
# {what is replaced: how many conversions rely on it, and how it is put back}
_shared: dict[str, tuple[int, ExitStack]] = {}


@contextlib.contextmanager
def quiet(*loggers: str, native: bool = False) -> Iterator[None]:
    """Hold back standard output, standard error, warnings, and these loggers with all below them.

    native: hold back what compiled code writes to standard error as well (TensorFlow's greetings).
    Threads and asyncio tasks may enter it at the same time.
    """
    with ExitStack() as stack:
        stack.enter_context(_share("streams", _redirected_streams))
        stack.enter_context(_share("warnings", _ignored_warnings))
        for name in loggers:
            stack.enter_context(_share(f"logger {name}", partial(_muted, name)))
        if native:
            stack.enter_context(_share("native", _native_stderr_closed))
        token = _silent.set(True)
        stack.callback(_silent.reset, token)
        yield


@contextlib.contextmanager
def _share(key: str, make: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Enter a context of the process with the first of those who need it, and leave it with the last."""
    with _LOCK:
        count, stack = _shared.get(key) or (0, ExitStack())
        if not count:
            stack.enter_context(make())
        _shared[key] = count + 1, stack
    try:
        yield
    finally:
        with _LOCK:
            count, stack = _shared.pop(key)
            if count > 1:
                _shared[key] = count - 1, stack
            else:
                stack.close()


class _Stream:
    """A standard stream without what silent threads write to it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        return len(text) if _silent.get() or self._stream is None else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def _redirected_streams() -> Iterator[None]:
    with ExitStack() as stack:
        for name in ("stdout", "stderr"):
            kept = getattr(sys, name)
            ours = _Stream(kept)
            setattr(sys, name, ours)
            stack.callback(_put_back, name, ours, kept)
        yield


def _put_back(name: str, ours: object, kept: object) -> None:
    """Restore a stream, unless somebody else has replaced it meanwhile."""
    if getattr(sys, name) is ours:
        setattr(sys, name, kept)


@contextlib.contextmanager
def _ignored_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _native_stderr_closed() -> Iterator[None]:
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


@contextlib.contextmanager
def _muted(name: str) -> Iterator[None]:
    """Disable a logger and its descendants: levels alone are set anew by imports."""
    known = [logging.getLogger(name)]
    known += [
        logger
        for other, logger in list(logging.Logger.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and other.startswith(f"{name}.")
    ]
    before = [(logger, logger.disabled, logger.level) for logger in known]
    for logger in known:
        logger.disabled = True
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, disabled, level in before:
            logger.disabled = disabled
            logger.setLevel(level)
