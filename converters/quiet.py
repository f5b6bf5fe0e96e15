"""Silence the exporters while they work: their prints, their log lines, their warnings.

What they raise still comes out; nothing else of a conversion belongs on the user's screen.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*loggers: str, native: bool = False) -> Iterator[None]:
    """Hold back standard output, standard error, warnings, and these loggers with all below them.

    native: hold back what compiled code writes to standard error as well (TensorFlow's greetings).
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        for name in loggers:
            stack.enter_context(_muted(name))
        if native:
            stack.enter_context(_native_stderr_closed())
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
        for other, logger in logging.Logger.manager.loggerDict.items()
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
