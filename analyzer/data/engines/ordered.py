"""Hand batches to several workers at once, and take their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from analyzer.data.engines.reading import ReadAhead
from analyzer.types import Arrays

_Task = TypeVar("_Task")


def in_order(
    batches: ReadAhead[Any],
    begin: Callable[[int, Any], _Task],
    result: Callable[[int, _Task], Arrays],
    at_once: int,
) -> Iterator[tuple[int, Arrays]]:
    """Yield the index and the columns of every batch, in order.

    begin: starts the work on a batch. result: waits for its columns. at_once: so many batches are in work, or done and
    not taken yet. An error of a batch is raised after the results of those before it.
    """
    pending: deque[tuple[int, _Task]] = deque()
    index, open_ended = 0, True
    failure: BaseException | None = None
    while open_ended or pending:
        while open_ended and len(pending) < at_once and (batches.ready or not pending):
            try:
                batch = batches.next()
            except BaseException as error:
                failure, batch = error, None
            if batch is None:
                open_ended = False
            else:
                pending.append((index, begin(index, batch)))
                index += 1
        if pending:
            place, task = pending.popleft()
            yield place, result(place, task)
    if failure is not None:
        raise failure
