"""Progress as lines of text, for a log or a pipe: what is being done, once it takes longer than a moment.

A thread of its own writes the lines, so that the work is not slowed and a long step says that it still runs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

PATIENCE = 1.0
"""Seconds of work without a line: what is done by then needs none."""
INTERVAL = 10.0
"""Seconds between two lines about one step."""


@dataclass
class Pace:
    """How fast work goes on: what was done before the first count is not counted."""

    clock: Callable[[], float] = time.monotonic
    _first: tuple[int, float] | None = None
    per_second: float = 0.0
    seconds_left: float | None = None

    def count(self, done: int, total: int) -> None:
        """Note how much is done. total: 0 where it is not known."""
        now = self.clock()
        if self._first is None:
            self._first = (done, now)
        begun, start = self._first
        if done > begun and now > start:
            self.per_second = (done - begun) / (now - start)
            self.seconds_left = max(total - done, 0) / self.per_second if total else None

    def text(self, unit: str) -> str:
        """Return "12.5 samples/s, 3 min left"; empty before anything is done. unit: such as "samples"."""
        if not self.per_second:
            return ""
        rate = (
            f"{self.per_second:.3g} {unit}/s" if self.per_second < 100 else f"{self.per_second:,.0f} {unit}/s"
        )
        return rate if self.seconds_left is None else f"{rate}, {duration(self.seconds_left)} left"


def duration(seconds: float) -> str:
    """Return a time in words, such as "40 s", "3 min" or "2 h 10 min"."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


class ProgressLines:
    """What is being done now, written at intervals. write: takes one line."""

    def __init__(self, description: str, write: Callable[[str], None], patience: float = PATIENCE) -> None:
        self._write, self._patience = write, patience
        self._step, self._count = description, ""
        self._over = threading.Event()

    def begin(self, step: str) -> None:
        """Note the step that begins."""
        self._step, self._count = step, ""

    def count(self, done: int, total: int, pace: str = "") -> None:
        """Note how much of the step is done. pace: the rate and the time left, in words."""
        counted = f": {done:,} of {total:,}" if total else f": {done:,}" if pace else ""
        self._count = f"{counted}, {pace}" if pace else counted

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
