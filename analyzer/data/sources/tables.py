"""Parquet and Arrow files as samples: image bytes, or arrays, with labels, in the layout of Hugging Face `datasets`.

A Parquet file is read row group by row group, a few rows at a time; an Arrow file is mapped. Refuses tables without a
column for each input of the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from analyzer.data.arrow import arrow
from analyzer.data.sources.arrays import ID, LABEL, label_of
from analyzer.data.sources.base import Record, Sequential, fingerprint
from analyzer.data.sources.cells import Unreadable, class_names_of, is_image, is_nested, value_of
from analyzer.errors import InputError
from converters.errors import one_line

PARQUET = frozenset({".parquet", ".pq"})
ARROW = frozenset({".arrow", ".feather", ".ipc"})
SUFFIXES = PARQUET | ARROW
_ROWS = 16
"""Rows that are decoded at once: an image may have some megabytes."""


class Tables(Sequential):
    """The rows of one or several files, one after another."""

    stacked = False

    def __init__(
        self, files: Sequence[Path], where: str, inputs: Sequence[str], label: str | None, column: str | None
    ) -> None:
        super().__init__()
        self.files, self.where = files, where
        self._tables = [_opened(path) for path in files]
        first = self._tables[0]
        self.kind = "parquet" if isinstance(first, _Parquet) else "arrow"
        for table in self._tables[1:]:
            if not table.schema.equals(first.schema):
                raise InputError(
                    f"{table.path}: its columns are not those of {first.path}. Fix: give files of one table"
                )
        self.samples: int | None = sum(table.rows for table in self._tables)
        if not self.samples:
            raise InputError(f"{where}: holds no row. Fix: give a table with at least one sample")
        self._column_of = _inputs_of(first, inputs, label, column)
        self.columns = tuple(self._column_of)
        taken = set(self._column_of.values())
        self._label = _label_of(first, label, taken)
        self._id = ID if ID in first.schema.names and ID not in taken else None
        self.label_names = None if self._label is None else class_names_of(first.schema, self._label)

    def described(self) -> dict[str, Any]:
        """Return the kind, the place, the rows and the columns that are read."""
        parts = [table.rows for table in self._tables]
        read = [(name, str(self._tables[0].schema.field(name).type)) for name in self._read]
        identity = {"kind": self.kind, "samples": self.samples, "tables": fingerprint([parts, read])}
        return {"identity": identity, "path": self.where}

    @property
    def _read(self) -> list[str]:
        more = [name for name in (self._label, self._id) if name is not None]
        return list(dict.fromkeys([*self._column_of.values(), *more]))

    def begin(self, start: int) -> Iterator[Record]:
        """Yield all rows from a position on."""
        first, faults = 0, (arrow().ArrowException, OSError)
        for table in self._tables:
            if start < first + table.rows:
                row = max(start - first, 0)
                try:
                    for batch in table.batches(self._read, row):
                        yield from self._records(table, batch, row)
                        row += batch.num_rows
                except faults as error:
                    raise InputError(
                        f"{table.path}: row {row} cannot be read ({one_line(error, 160)}). Fix: write the file again"
                    ) from error
            first += table.rows

    def _records(self, table: _Table, batch: Any, row: int) -> Iterator[Record]:
        columns = {name: batch.column(name) for name in self._read}
        for index in range(batch.num_rows):
            name = f"{table.path.name}[{row + index}]"
            if self._id is not None and (given := columns[self._id][index].as_py()) is not None:
                name = str(given)
            label = None if self._label is None else label_of(columns[self._label][index].as_py())
            try:
                values = {
                    key: value_of(columns[column][index], table.path.parent)
                    for key, column in self._column_of.items()
                }
            except Unreadable as error:
                yield Record({}, name, label, str(error))
                continue
            yield Record(values, name, label)


class _Table(ABC):
    """A file: path, schema, rows."""

    def __init__(self, path: Path, schema: Any, rows: int) -> None:
        self.path, self.schema, self.rows = path, schema, rows

    @abstractmethod
    def batches(self, columns: list[str], start: int) -> Iterator[Any]:
        """Yield record batches of some columns from a row on."""


class _Parquet(_Table):
    def __init__(self, path: Path) -> None:
        with arrow().parquet.ParquetFile(path) as file:
            super().__init__(path, file.schema_arrow, file.metadata.num_rows)

    def batches(self, columns: list[str], start: int) -> Iterator[Any]:
        # A buffer keeps a column of a row group from being read whole.
        with arrow().parquet.ParquetFile(self.path, buffer_size=2**20, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if start >= rows:
                    start -= rows
                    continue
                read = file.iter_batches(_ROWS, row_groups=[group], columns=columns, use_threads=False)
                for batch in read:
                    skipped = min(start, batch.num_rows)
                    start -= skipped
                    if batch.num_rows > skipped:
                        yield batch.slice(skipped)


class _Arrow(_Table):
    def __init__(self, path: Path) -> None:
        with _ipc(path) as (schema, batches):
            super().__init__(path, schema, sum(batch.num_rows for batch in batches))

    def batches(self, columns: list[str], start: int) -> Iterator[Any]:
        with _ipc(self.path) as (_, batches):
            for batch in batches:
                if start >= batch.num_rows:
                    start -= batch.num_rows
                    continue
                # A mapped file of a stranger may state offsets beyond its end.
                batch.validate(full=True)
                yield batch.slice(start).select(columns)
                start = 0


class _ipc:
    """The schema and the batches of a mapped Arrow file, or stream, as `datasets` writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> tuple[Any, Iterator[Any]]:
        pa = arrow()
        self._map = pa.memory_map(str(self.path))
        try:
            file = pa.ipc.open_file(self._map)
        except pa.ArrowInvalid:
            self._map.seek(0)
            stream = pa.ipc.open_stream(self._map)
            return stream.schema, iter(stream)
        return file.schema, (file.get_batch(index) for index in range(file.num_record_batches))

    def __exit__(self, *_: object) -> None:
        self._map.close()


def _opened(path: Path) -> _Table:
    try:
        return _Parquet(path) if path.suffix.lower() in PARQUET else _Arrow(path)
    except (arrow().ArrowException, OSError) as error:
        kind = "Parquet" if path.suffix.lower() in PARQUET else "Arrow"
        raise InputError(
            f"{path}: not a readable {kind} file ({one_line(error, 160)}). Fix: write it again with pyarrow"
        ) from error


def _inputs_of(
    table: _Table, inputs: Sequence[str], label: str | None, column: str | None
) -> Mapping[str, str]:
    """{input: column}. Raises InputError for an input without a column."""
    names, schema = table.schema.names, table.schema
    has = f"{table.path}: the table has the columns {', '.join(names)}"
    if column is not None:
        if len(inputs) != 1:
            raise InputError(
                f"column= names the column of one input, the model has {len(inputs)}. Fix: omit it"
            )
        if column not in names:
            raise InputError(f"{has}, and not {column!r}. Fix: name one of them")
        return {inputs[0]: column}
    if all(name in names for name in inputs):
        return {name: name for name in inputs}
    if len(inputs) == 1:
        others = [name for name in names if name not in (label or LABEL, ID)]
        images = [name for name in others if is_image(schema.field(name).type)]
        nested = [name for name in others if is_nested(schema.field(name).type)]
        for found in (images, nested):
            if len(found) == 1:
                return {inputs[0]: found[0]}
        raise InputError(
            f"{has}, expected one for the input {inputs[0]!r}. Fix: name it, column={(images or nested or names)[0]!r} "
            "(--column)"
        )
    missing = [name for name in inputs if name not in names]
    raise InputError(f"{has}, and none for the input {missing[0]!r}. Fix: name the columns after the inputs")


def _label_of(table: _Table, label: str | None, taken: set[str]) -> str | None:
    """The column of labels; None where there is none. Raises InputError for a name that the table does not have."""
    names = table.schema.names
    if label is not None:
        if label not in names:
            raise InputError(
                f"{table.path}: the table has no column {label!r}, but {', '.join(names)}. Fix: give label= "
                "(--label) one of them"
            )
        return label
    if LABEL in names and LABEL not in taken:
        return LABEL
    known = [name for name in names if name not in taken and class_names_of(table.schema, name)]
    return known[0] if len(known) == 1 else None
