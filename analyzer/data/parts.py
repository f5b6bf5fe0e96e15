"""The parts of results: Parquet files that are complete or not there, whatever ends the process that writes them.

A part holds the samples of a run of positions: those explained as rows, those that failed in its metadata. It is
written under another name, synced and renamed. An interrupted part is kept apart, and the next run goes on with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analyzer.data.arrow import arrow
from analyzer.data.table_schema import METADATA
from analyzer.errors import AnalysisError
from converters.errors import one_line
from converters.system.atomic import put_in_place

PART_METADATA = b"onnxplain.part"
_NAME = re.compile(r"part-(\d{4,})-(\d{6,})\.parquet")


@dataclass(frozen=True)
class Failure:
    """A sample that could not be read or explained."""

    id: str
    position: int
    reason: str


@dataclass(frozen=True)
class Part:
    """A complete part of a job. start: its first position. samples: explained and failed. rows: explained."""

    path: Path
    shard: int
    number: int
    start: int
    samples: int
    rows: int
    job: str
    failures: tuple[Failure, ...] = ()


def part_name(shard: int, number: int) -> str:
    """Return the name of a part. number: in its shard."""
    return f"part-{shard:04d}-{number:06d}.parquet"


def partial_name(shard: int, number: int) -> str:
    """Return the name of a part that was interrupted. Readers of folders skip names that begin with a dot."""
    return f".partial-{shard:04d}-{number:06d}.parquet"


def find_parts(folder: Path, shard: int | None = None) -> list[Part]:
    """Return the complete parts of a folder, by their first position. shard: only of this one.

    Raises AnalysisError for a part that cannot be read.
    """
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if (name := _NAME.fullmatch(path.name)) and shard in (None, int(name[1])):
            found.append(read_part(path, int(name[1]), int(name[2])))
    return sorted(found, key=lambda part: part.start)


def read_part(path: Path, shard: int, number: int) -> Part:
    """Return what the metadata of a part says. Raises AnalysisError."""
    pa = arrow()
    try:
        metadata = pa.parquet.read_metadata(path)
        stated = json.loads(metadata.metadata[PART_METADATA])
        failures = tuple(Failure(**one) for one in stated["failures"])
        counts = (stated["start"], stated["samples"], metadata.num_rows)
        part = Part(path, shard, number, *counts, stated["job"], failures)
        if part.samples != part.rows + len(failures):
            raise ValueError(f"{part.samples} samples, {part.rows} rows")
        return part
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise AnalysisError(
            f"{path}: not a readable part of results ({one_line(error, 120)}). Fix: remove the file, and run the job "
            "again"
        ) from error


def remove_shard(folder: Path, shard: int) -> None:
    """Remove the parts, complete and interrupted, and the errors of a shard."""
    for pattern in (f"part-{shard:04d}-*.parquet", f".partial-{shard:04d}-*", f".part-{shard:04d}-*"):
        for path in folder.glob(pattern):
            path.unlink()
    with suppress(FileNotFoundError):
        (folder / errors_name(shard)).unlink()


def errors_name(shard: int) -> str:
    """Return the name of the list of failed samples of a shard."""
    return f"errors-{shard:04d}.jsonl"


def write_errors(folder: Path, shard: int, failures: Sequence[Failure]) -> None:
    """Write the failed samples of a shard, one JSON object a line. Without one, there is no file."""
    path = folder / errors_name(shard)
    text = "".join(json.dumps(vars(one), ensure_ascii=False) + "\n" for one in failures)
    if not failures:
        path.unlink(missing_ok=True)
    elif not path.exists() or path.read_text(encoding="utf-8") != text:
        temporary = folder / f".{path.name}.tmp"
        temporary.write_text(text, encoding="utf-8")
        put_in_place(temporary, path)


@dataclass
class PartWriter:
    """A part in work. start: its first position. samples: those that are written, or failed."""

    folder: Path
    shard: int
    number: int
    schema: Any
    job: str
    start: int
    samples: int = 0
    failures: list[Failure] = field(default_factory=list)
    _writer: Any = None

    @property
    def _temporary(self) -> Path:
        return self.folder / f".{part_name(self.shard, self.number)}.tmp"

    def add(self, rows: Any, failures: Sequence[Failure]) -> None:
        """Write the rows of a batch, None where there is none, and note the samples that failed."""
        if self._writer is None:
            self._writer = _writer(self._temporary, self.schema)
        if rows is not None:
            self._writer.write_batch(rows)
        self.failures += failures
        self.samples += (0 if rows is None else rows.num_rows) + len(failures)

    def finish(self) -> Part:
        """Complete the part."""
        path = self.folder / part_name(self.shard, self.number)
        rows = self.samples - len(self.failures)
        self._close(path)
        (self.folder / partial_name(self.shard, self.number)).unlink(missing_ok=True)
        counts = (self.start, self.samples, rows)
        return Part(path, self.shard, self.number, *counts, self.job, tuple(self.failures))

    def keep(self) -> None:
        """Keep what was written of the part, so that the next run goes on with it."""
        if self.samples:
            self._close(self.folder / partial_name(self.shard, self.number))
        else:
            self.discard()

    def discard(self) -> None:
        """Remove what was written of the part."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._temporary.unlink(missing_ok=True)

    def take_up(self) -> None:
        """Copy what an interrupted run has kept of this part."""
        path = self.folder / partial_name(self.shard, self.number)
        if not path.exists():
            return
        try:
            kept: Part | None = read_part(path, self.shard, self.number)
            tables = list(_row_groups(path))
        except AnalysisError:
            kept = None
        if kept is None or (kept.job, kept.start) != (self.job, self.start):
            # Another job may have left it; the part is then explained from its beginning.
            path.unlink()
            return
        self._writer = _writer(self._temporary, self.schema)
        for table in tables:
            self._writer.write_table(table, row_group_size=max(table.num_rows, 1))
        self.samples, self.failures = kept.samples, list(kept.failures)

    def _close(self, path: Path) -> None:
        assert self._writer is not None
        failures = [vars(failure) for failure in self.failures]
        stated = {"job": self.job, "start": self.start, "samples": self.samples, "failures": failures}
        self._writer.add_key_value_metadata({PART_METADATA: json.dumps(stated, ensure_ascii=False)})
        self._writer.close()
        self._writer = None
        put_in_place(self._temporary, path)


def _writer(path: Path, schema: Any) -> Any:
    """A writer of a Parquet file. Numbers in arrays have no use for dictionaries and statistics."""
    pa = arrow()
    plain = [
        one.name
        for one in schema
        if not isinstance(one.type, pa.BaseExtensionType) and one.type.num_fields == 0
    ]
    return pa.parquet.ParquetWriter(
        path,
        schema,
        compression="zstd",
        use_dictionary=[n for n in plain if n == "label"],
        write_statistics=plain,
    )


def _row_groups(path: Path) -> Iterator[Any]:
    with arrow().parquet.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def metadata_of(path: Path) -> dict[str, Any]:
    """Return the remarks in the schema of a part."""
    found = json.loads(arrow().parquet.read_schema(path).metadata[METADATA])
    assert isinstance(found, dict)
    return found
