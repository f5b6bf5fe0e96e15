"""Python objects as samples: a data set with a length and numbered items, such as torch's, or any iterable.

An item is a value of the model's only input, a pair (value, label), or a mapping of columns, as `datasets` gives it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from analyzer.data.sources.arrays import ID, LABEL, label_of
from analyzer.data.sources.base import Record, Sequential
from analyzer.errors import InputError
from converters.errors import one_line


class _Items:
    """How an item becomes a record. column: of an item that is a mapping; label: the key of its label."""

    stacked = False

    def __init__(self, items: Any, inputs: Sequence[str], label: str | None, column: str | None) -> None:
        self.items, self.columns = items, tuple(inputs)
        self.label, self.column = label, column
        self.label_names = _names(items, label or LABEL)

    def _record(self, item: Any, position: int) -> Record:
        if isinstance(item, tuple) and len(item) == 1:
            (item,) = item
        label: Any = None
        own_id: Any = None
        if isinstance(item, tuple):
            if len(item) != 2:
                return Record({}, str(position), None, _unknown(item))
            item, label = item
        if not isinstance(item, Mapping) or self._is_image(item):
            if len(self.columns) > 1:
                return Record({}, str(position), None, _unnamed(self.columns, item))
            return Record({self.columns[0]: item}, str(position), label_of(label))
        label = item.get(self.label or LABEL, label)
        own_id = item.get(ID) if ID not in self.columns else None
        values, lacking = self._values(item)
        name = str(position) if own_id is None else str(label_of(own_id))
        return Record(values, name, label_of(label), lacking)

    def _is_image(self, item: Mapping[str, Any]) -> bool:
        return set(item) <= {"bytes", "path"} and not set(self.columns) & set(item)

    def _values(self, item: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        """The values of the inputs, and why they cannot be found."""
        if len(self.columns) == 1 and self.columns[0] not in item:
            known = {self.label or LABEL, ID}
            rest = [self.column] if self.column else [one for one in item if one not in known]
            if len(rest) == 1 and rest[0] in item:
                return {self.columns[0]: item[rest[0]]}, ""
        missing = [name for name in self.columns if name not in item]
        if missing:
            return {}, (
                f"the item has the columns {', '.join(map(str, item))}, and none for the input {missing[0]!r}. Fix: "
                "name the columns after the inputs, or give column="
            )
        return {name: item[name] for name in self.columns}, ""


class Numbered(_Items):
    """A data set with a length and items by number. An item that raises an error is an error of that sample alone."""

    kind = "data set"

    def __init__(self, items: Any, inputs: Sequence[str], label: str | None, column: str | None) -> None:
        super().__init__(items, inputs, label, column)
        self.samples: int | None = len(items)

    def described(self) -> dict[str, Any]:
        """Return the type and the length."""
        identity = {"kind": self.kind, "samples": self.samples, "type": type(self.items).__name__}
        return {"identity": identity, "path": ""}

    def records(self, start: int, stop: int) -> Iterator[Record]:
        """Yield the items of these positions."""
        assert self.samples is not None
        for position in range(start, min(stop, self.samples)):
            try:
                item = self.items[position]
            except Exception as error:  # the user's own code
                yield Record({}, str(position), None, f"{type(error).__name__}: {one_line(error)}")
                continue
            yield self._record(item, position)


class Stream(_Items, Sequential):
    """An iterable of unknown length. A run that continues iterates it from its beginning."""

    kind = "iterable"
    samples: int | None = None

    def __init__(
        self, items: Iterable[Any], inputs: Sequence[str], label: str | None, column: str | None
    ) -> None:
        _Items.__init__(self, items, inputs, label, column)
        Sequential.__init__(self)
        self._source: Iterator[Any] | None = None
        self._read = 0

    def described(self) -> dict[str, Any]:
        """Return the type."""
        identity = {"kind": self.kind, "samples": None, "type": type(self.items).__name__}
        return {"identity": identity, "path": ""}

    def begin(self, start: int) -> Iterator[Record]:
        """Yield all records from a position on."""
        if self._source is None or self._read > start:
            self._source, self._read = iter(self.items), 0
        for item in self._source:
            self._read += 1
            if self._read > start:
                yield self._record(item, self._read - 1)


def is_stream(source: Any) -> bool:
    """Return whether a data set is iterated: torch's IterableDataset may have a length, and has no items by number."""
    return any(kind.__name__ == "IterableDataset" for kind in type(source).__mro__)


def refuse_batches(source: Any) -> None:
    """Raise InputError for a loader, whose items are batches."""
    if hasattr(source, "dataset") and hasattr(source, "batch_size"):
        raise InputError(
            f"{type(source).__name__} yields batches, expected samples. Fix: give its .dataset; batch_size= is that "
            "of the run"
        )


def _names(items: Any, label: str) -> tuple[str, ...] | None:
    """The names of labels that are numbers, as data sets of `datasets` and of torchvision state them."""
    features = getattr(items, "features", None)
    feature = features.get(label) if isinstance(features, Mapping) else None
    names = getattr(feature, "names", None) if feature is not None else getattr(items, "classes", None)
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) for name in names):
        return tuple(names)
    return None


def _unknown(item: tuple[Any, ...]) -> str:
    return f"expected a sample, or a pair (sample, label), got a tuple of {len(item)}. Fix: give pairs or mappings"


def _unnamed(inputs: Sequence[str], item: Any) -> str:
    return (
        f"the model has {len(inputs)} inputs, got one {type(item).__name__}. Fix: give mappings with the keys "
        f"{', '.join(inputs)}"
    )
