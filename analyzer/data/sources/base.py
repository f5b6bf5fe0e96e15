"""The protocol of a source: numbered samples, each with an id, and a label where the source has one."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Label = str | int | None
"""A label as a source has it: a name, or a number."""


@dataclass(frozen=True)
class Record:
    """One sample.

    values: {column: an array, pixels, the bytes of an image file or a path}. error: why it cannot be read; "" else.
    """

    values: Mapping[str, Any]
    id: str
    label: Label = None
    error: str = ""


class Source(Protocol):
    """Samples at positions 0, 1, 2, ….

    kind: such as "folder". columns: those of the values, the model's inputs among them. samples: their number, None
    where it is known at the end alone. label_names: the names of labels that are numbers. stacked: whether the values
    of all samples have one shape, and make one array.
    """

    kind: str
    columns: tuple[str, ...]
    samples: int | None
    label_names: tuple[str, ...] | None
    stacked: bool

    def described(self) -> dict[str, Any]:
        """Return what a manifest says: `identity` is compared when a job continues, the rest is a remark."""

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """Yield the samples of these positions, fewer where the source ends. Starts rise from call to call."""


class Sequential(ABC):
    """Records by an iterator that goes on where the last call ended."""

    def __init__(self) -> None:
        self._position = 0
        self._iterator: Iterator[Record] | None = None

    @abstractmethod
    def begin(self, start: int) -> Iterator[Record]:
        """Yield all records from a position on."""

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """Yield the samples of these positions."""
        if self._iterator is None or self._position != start:
            self._iterator = self.begin(start)
            self._position = start
        while self._position < stop:
            record = next(self._iterator, None)
            if record is None:
                return
            self._position += 1
            yield record


def fingerprint(parts: Iterable[Any]) -> str:
    """Return a hash of the names, sizes and types that tell a source from another one."""
    found = hashlib.sha256()
    for part in parts:
        found.update(json.dumps(part, default=str).encode())
        found.update(b"\n")
    return found.hexdigest()
