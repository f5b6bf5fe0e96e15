"""Let a run end in order at Ctrl-C: it finishes the batch in hand, and keeps its rows. A second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Interrupted(KeyboardInterrupt):
    """A run was interrupted. done, total: samples; the message says how to continue."""

    def __init__(self, message: str, done: int, total: int) -> None:
        super().__init__(message)
        self.done, self.total = done, total


@contextmanager
def interruptible(stop: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Call `stop` at the first Ctrl-C within the block, and raise KeyboardInterrupt at the second.

    Yields a function that says whether there was one. In a thread other than the main one nothing is changed, as only
    the main thread may ask for signals.
    """
    asked = threading.Event()

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        stop()

    if threading.current_thread() is not threading.main_thread():
        yield asked.is_set
        return
    before = signal.getsignal(signal.SIGINT)
    if before != signal.default_int_handler:
        # A notebook or a server has its own.
        yield asked.is_set
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGINT, before)
