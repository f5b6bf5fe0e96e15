"""Read batches ahead in a thread, so that reading and decoding overlap with computing."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_END = object()
# How often a reader that waits looks whether it is to end.
_PAUSE = 0.1


class ReadAhead(Generic[_Made]):
    """The results of `make(item)` for the items of an iterable, made in a thread, at most a few ahead.

    An error of the iterable or of `make` is raised where its result would have come.
    """

    def __init__(
        self, items: Iterable[_Item], make: Callable[[_Item], _Made], ahead: int, stopped: threading.Event
    ) -> None:
        self._found: queue.Queue[Any] = queue.Queue(ahead)
        self._stopped = stopped
        self._closed = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._read, args=(items, make), daemon=True, name="reader")
        self._thread.start()

    @property
    def ready(self) -> bool:
        """Whether the next result, or the end, is there."""
        return self._ended or self._stopped.is_set() or not self._found.empty()

    def next(self) -> _Made | None:
        """Return the next result, waiting for it; None at the end, or when the engine was stopped."""
        while not self._ended and not self._stopped.is_set():
            try:
                found, error = self._found.get(timeout=_PAUSE)
            except queue.Empty:
                continue
            if error is not None:
                self._ended = True
                raise error
            if found is _END:
                break
            return found  # type: ignore[no-any-return]
        self._ended = True
        return None

    def close(self) -> None:
        """End the thread. An item that is being read is read to its end."""
        self._closed.set()
        self._thread.join()

    def _read(self, items: Iterable[Any], make: Callable[[Any], _Made]) -> None:
        source = iter(items)
        try:
            for item in source:
                if self._over() or not self._put((make(item), None)):
                    return
            self._put((_END, None))
        except BaseException as error:
            self._put((None, error))
        finally:
            if (close := getattr(source, "close", None)) is not None:
                close()

    def _over(self) -> bool:
        return self._closed.is_set() or self._stopped.is_set()

    def _put(self, entry: tuple[Any, BaseException | None]) -> bool:
        """Hand over a result; False where nobody waits for it any more."""
        while not self._over():
            try:
                self._found.put(entry, timeout=_PAUSE)
                return True
            except queue.Full:
                continue
        return False


@contextmanager
def reading(
    items: Iterable[_Item], make: Callable[[_Item], _Made], ahead: int, stopped: threading.Event
) -> Iterator[ReadAhead[_Made]]:
    """Read ahead within the block."""
    found = ReadAhead(items, make, ahead, stopped)
    try:
        yield found
    finally:
        found.close()
