"""Silence the exporters while they work: their prints, their log lines, their warnings.

What they raise still comes out; nothing else of a conversion belongs on the user's screen.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Hold back standard output, standard error, warnings, and these loggers with all below them."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        for name in loggers:
            stack.enter_context(_muted(name))
        yield


@contextlib.contextmanager
def _muted(name: str) -> Iterator[None]:
    """Refuse every record at the handlers of a logger and of its descendants: levels alone are reset by imports."""
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
