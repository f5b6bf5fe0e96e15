"""The results of a data set, read lazily from their folder: a sequence of Attributions, and tables.

From complete parts alone: the results of a run that is still going on, or was ended, can be read at any time.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, overload

import numpy as np

from analyzer.data import manifest as manifests
from analyzer.data.arrow import arrow
from analyzer.data.parts import Part, find_parts
from analyzer.data.restored import attribution
from analyzer.data.table_schema import ID, SHAPE, schema_of, stored_columns
from analyzer.errors import AnalysisError
from analyzer.methods.result import Attribution

_GROUPS, _FOOTERS = 4, 64
"""Batches, and footers of files, that are kept in memory for the next access."""


def open_results(out: str | os.PathLike[str]) -> Results:
    """Return the results that `explain_dataset` or `onnxplain run` has written to a folder.

    Raises AnalysisError where the folder holds none, MissingDependency without pyarrow.
    """
    return Results(Path(out))


class Results:
    """The explained samples of a data set, in the order of the source.

    `results[i]` is the Attribution of one sample, `results[2:5]` of several; they are read when they are asked for.
    Samples that failed are left out, and listed in `errors`.
    """

    def __init__(self, folder: Path) -> None:
        arrow()
        self.folder = folder
        found = manifests.read(folder)
        if found is None:
            raise AnalysisError(
                f"{folder}: expected a folder of results, found no {manifests.NAME}. Fix: give the folder that "
                "onnxplain.explain_dataset (onnxplain run -o) has written"
            )
        self.manifest: dict[str, Any] = found
        self._parts = find_parts(folder)
        self._ends = np.cumsum([part.rows for part in self._parts], dtype=np.int64)
        self._group = lru_cache(_GROUPS)(_row_group)
        self._group_ends = lru_cache(_FOOTERS)(_ends_of_groups)

    def __len__(self) -> int:
        """Return the number of explained samples."""
        return int(self._ends[-1]) if len(self._ends) else 0

    @overload
    def __getitem__(self, index: int) -> Attribution: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | np.ndarray) -> Attribution: ...

    def __getitem__(self, index: Any) -> Attribution:
        """Return the explanation of one sample, or of the samples of a slice, a list or a mask.

        Raises IndexError for a sample that is not there, AnalysisError where maps of different shapes make no array.
        """
        rows = self._rows_at(index)
        if not rows:
            raise IndexError(f"{self.folder}: the slice holds no sample. Fix: give one from 0 to {len(self)}")
        return attribution(self._table_of(rows), self.manifest)

    def __iter__(self) -> Iterator[Attribution]:
        """Yield the explanation of each sample. One batch at a time is held in memory."""
        for index in range(len(self)):
            yield self[index]

    def __repr__(self) -> str:
        """Return the method, the counts and the folder."""
        failed = f", {len(self.errors)} failed" if self.errors else ""
        return f"Results({self.manifest['method']}, {len(self)} samples{failed}, {str(self.folder)!r})"

    @cached_property
    def ids(self) -> list[str]:
        """The ids of the explained samples, such as their files."""
        found: list[str] = self.table([ID]).column(ID).to_pylist()
        return found

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The samples that failed: {"id", "position", "reason"}, in the order of the source."""
        return [vars(failure) for part in self._parts for failure in part.failures]

    def errors_of(self, shard: int) -> list[dict[str, Any]]:
        """Return the samples of one shard that failed."""
        return [vars(one) for part in self._parts if part.shard == shard for one in part.failures]

    @property
    def samples(self) -> int:
        """The number of samples that are done, explained or failed."""
        return sum(part.samples for part in self._parts)

    @property
    def is_complete(self) -> bool | None:
        """Whether all samples of the source are done; None where the source has not stated their number."""
        stated = self.manifest["samples"]
        return None if stated is None else self.samples == stated

    def table(self, columns: Sequence[str] | None = None) -> Any:
        """Return columns of all samples as a pyarrow.Table. columns: their names, default all.

        Maps and attributions of a large data set do not fit into memory: read its parts one by one then.
        Raises AnalysisError for a column that is not there.
        """
        pa = arrow()
        if isinstance(columns, str):
            columns = [columns]
        known = self._schema.names
        if missing := [name for name in columns or () if name not in known]:
            raise AnalysisError(
                f"{self.folder}: the results have no column {missing[0]!r}. Fix: choose from {', '.join(known)}"
            )
        tables = [
            pa.parquet.read_table(part.path, columns=columns, partitioning=None) for part in self._parts
        ]
        if not tables:
            return self._schema.empty_table().select(list(columns) if columns is not None else known)
        return pa.concat_tables(tables)

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield columns of all samples as pyarrow Tables of one batch each. columns: their names, default all."""
        names = None if columns is None else [*columns, *(f"{one}{SHAPE}" for one in columns)]
        for path in self.paths:
            with arrow().parquet.ParquetFile(path) as file:
                known = [name for name in file.schema_arrow.names if names is None or name in names]
                for group in range(file.metadata.num_row_groups):
                    yield file.read_row_group(group, known)

    @property
    def paths(self) -> list[Path]:
        """The Parquet files, in the order of the samples."""
        return [part.path for part in self._parts]

    @cached_property
    def _schema(self) -> Any:
        """The schema of the parts. Before the first part, that of the manifest."""
        if self._parts:
            return arrow().parquet.read_schema(self._parts[0].path)
        return schema_of(stored_columns(self.manifest["schema"]), {})

    def _rows_at(self, index: Any) -> list[int]:
        if isinstance(index, slice):
            return list(range(*index.indices(len(self))))
        array = np.asarray(index)
        if array.ndim == 1:
            given = np.flatnonzero(array) if array.dtype == bool else array
            return [self._row_at(one) for one in given]
        return [self._row_at(index)]

    def _row_at(self, index: Any) -> int:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(
                f"{self.folder}: no sample {number}. Fix: give an index below {len(self)}, the number of samples"
            )
        return number % len(self)

    def _table_of(self, rows: Sequence[int]) -> Any:
        """The rows as a table. Each row group is read once for neighbouring rows."""
        tables = []
        for part, group, within in self._places(rows):
            tables.append(self._group(part.path, group).take(within))
        return arrow().concat_tables(tables)

    def _places(self, rows: Sequence[int]) -> Iterator[tuple[Part, int, list[int]]]:
        """Yield the part, the row group and the rows in it, of neighbouring rows of one group together."""
        last: tuple[Part, int, list[int]] | None = None
        for row in rows:
            number = int(np.searchsorted(self._ends, row, side="right"))
            part = self._parts[number]
            inside = row - (int(self._ends[number - 1]) if number else 0)
            ends = self._group_ends(part.path)
            group = int(np.searchsorted(ends, inside, side="right"))
            inside -= int(ends[group - 1]) if group else 0
            if last is not None and last[0] is part and last[1] == group:
                last[2].append(inside)
                continue
            if last is not None:
                yield last
            last = (part, group, [inside])
        if last is not None:
            yield last


Sequence.register(Results)


def _row_group(path: Path, group: int) -> Any:
    with arrow().parquet.ParquetFile(path) as file:
        return file.read_row_group(group)


def _ends_of_groups(path: Path) -> np.ndarray:
    """The rows before the end of each row group."""
    metadata = arrow().parquet.read_metadata(path)
    counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return np.cumsum(counts)
