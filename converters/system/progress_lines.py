"""Progress as lines of text, for a log or a pipe: what is being done, once it takes longer than a moment.

A thread of its own writes the lines, so that the work is not slowed and a long step says that it still runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PATIENCE = 1.0
"""Seconds of work without a line: what is done by then needs none."""
INTERVAL = 10.0
"""Seconds between two lines about one step."""


class ProgressLines:
    """What is being done now, written at intervals. write: takes one line."""

    def __init__(self, description: str, write: Callable[[str], None], patience: float = PATIENCE) -> None:
        self._write, self._patience = write, patience
        self._step, self._count = description, ""
        self._over = threading.Event()

    def begin(self, step: str) -> None:
        """Note the step that begins."""
        self._step, self._count = step, ""

    def count(self, done: int, total: int) -> None:
        """Note how much of the step is done."""
        self._count = f": {done:,} of {total:,}" if total else ""

    @contextmanager
    def running(self) -> Iterator[None]:
        """Write lines until the work ends or fails."""
        thread = threading.Thread(target=self._tell, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _tell(self) -> None:
        said, when, began = "", 0.0, time.monotonic()
        wait = self._patience
        while not self._over.wait(wait):
            wait = min(self._patience, PATIENCE) / 2
            step, line, now = self._step, self._step + self._count, time.monotonic()
            if step == said and now - when < INTERVAL:
                continue
            self._write(f"{line} … {now - began:.0f} s" if step == said else f"{line} …")
            said, when = step, now
