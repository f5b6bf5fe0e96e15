"""A job: the parts of one shard that are still to be done, batch by batch, and what is written of each.

From a source, an explainer and an engine to parts in a folder. Part k of the job holds the positions k·part_size to
(k+1)·part_size, and belongs to shard k mod n. No batch crosses a part, so that every run has the same batches and the
same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.data.arrow import arrow
from analyzer.data.batch_explainer import BatchExplainer
from analyzer.data.columns import ERROR, TARGET
from analyzer.data.engines import Engine
from analyzer.data.interruption import Interrupted, interruptible
from analyzer.data.labels import LabelIndex
from analyzer.data.parts import Failure, Part, PartWriter, find_parts, write_errors
from analyzer.data.sources import Record, Source
from analyzer.data.table_schema import ID, LABEL, LABEL_INDEX, POSITION, rows_of
from analyzer.errors import AnalysisError, InputError
from analyzer.types import Arrays

# Before the columns of the source, so that none has the name of an input.
_OWN = "sample/"


class SampleFailed(AnalysisError):
    """A sample could not be read or explained, and the run was to end at the first one."""


@dataclass
class Watcher:
    """What is told of a run: progress(done, total) in samples of the shard; total is 0 where it is not known."""

    progress: Callable[[int, int], None] = lambda done, total: None
    failed: Callable[[Failure], None] = lambda failure: None
    finished: Callable[[Part], None] = lambda part: None


@dataclass
class Job:
    """One shard of a data set.

    key: tells the job from others. part_size, batch_size: samples. schema: of the parts. by_label: the class of the
    label is explained.
    """

    explainer: BatchExplainer
    source: Source
    labels: LabelIndex
    folder: Path
    key: str
    schema: Any
    part_size: int
    batch_size: int
    shard: int = 0
    shards: int = 1
    fail_fast: bool = False
    by_label: bool = False
    watcher: Watcher = field(default_factory=Watcher)

    def __post_init__(self) -> None:
        self._parts = {part.number: part for part in find_parts(self.folder, self.shard)}
        for part in self._parts.values():
            if part.job != self.key:
                raise AnalysisError(
                    f"{part.path}: belongs to another job than the manifest. Fix: remove the file, or give "
                    "another folder"
                )
            expected = self._length(part.number)
            if part.start != self._start(part.number) or (expected is not None and part.samples != expected):
                raise AnalysisError(
                    f"{part.path}: expected {expected} samples from position {self._start(part.number)}, found "
                    f"{part.samples} from {part.start}. Fix: remove the file, and run the job again"
                )
        self._complete = sum(part.samples for part in self._parts.values())
        # The thread that reads appends, the one that writes removes.
        self._writers: list[PartWriter] = []

    @property
    def total(self) -> int:
        """The samples of the shard; 0 where their number is not known."""
        if self.source.samples is None:
            return 0
        return sum(self._length(number) or 0 for number in self._numbers())

    @property
    def failures(self) -> list[Failure]:
        """The samples of complete parts that failed."""
        return [one for number in sorted(self._parts) for one in self._parts[number].failures]

    def run(self, engine: Engine) -> None:
        """Explain what is not done. Raises Interrupted after Ctrl-C, SampleFailed with `fail_fast`."""
        self._remove_remains()
        write_errors(self.folder, self.shard, self.failures)
        self._tell()
        with interruptible(engine.stop) as interrupted:
            try:
                with closing(engine.map(self.explainer, self._batches())) as results:  # type: ignore[type-var]
                    for _, columns in results:
                        self._take(columns)
                while self._writers and not interrupted():
                    self._finish()
                    self._tell()
            except Exception:
                with suppress(OSError, arrow().ArrowException):
                    self._keep()
                raise
            except BaseException:
                # At once: a part may be in the middle of a row group.
                self._discard()
                raise
            if interrupted() and self._unfinished():
                error = self._interrupted()
                self._keep()
                raise error

    # Positions.

    def _start(self, number: int) -> int:
        return (number * self.shards + self.shard) * self.part_size

    def _length(self, number: int) -> int | None:
        """The samples of a part; None where only the end of the source tells."""
        if self.source.samples is None:
            return None
        return min(self.part_size, self.source.samples - self._start(number))

    def _numbers(self) -> Iterator[int]:
        """The parts of the shard."""
        for number in count():
            if self.source.samples is not None and self._start(number) >= self.source.samples:
                return
            yield number

    def _unfinished(self) -> bool:
        return self.source.samples is None or any(n not in self._parts for n in self._numbers())

    # Reading. The engine calls this in a thread of its own.

    def _batches(self) -> Iterator[Mapping[str, Any]]:
        for number in self._numbers():
            if number in self._parts:
                if self._parts[number].samples < self.part_size:
                    return
                continue
            start = self._start(number)
            writer = PartWriter(self.folder, self.shard, number, self.schema, self.key, start)
            writer.take_up()
            self._writers.append(writer)
            position, stop = start + writer.samples, start + self.part_size
            records = self.source.records(position, stop)
            while batch := list(islice(records, self.batch_size)):
                yield self._batch(batch, position)
                position += len(batch)
            if position < stop:
                self._refuse_short(position)
                return

    def _refuse_short(self, position: int) -> None:
        """Raise InputError where a source ends before the number of samples that it has stated."""
        if self.source.samples is not None and position < self.source.samples:
            raise InputError(
                f"the source ends after {position} samples, and has stated {self.source.samples}. Fix: correct the "
                "length of the data set"
            )

    def _batch(self, records: list[Record], position: int) -> Mapping[str, Any]:
        batch: dict[str, Any] = {
            name: self._column([record.values.get(name) for record in records])
            for name in self.source.columns
        }
        labels = [record.label for record in records]
        own: dict[str, Any] = {
            POSITION: np.arange(position, position + len(records)),
            ID: _objects([record.id for record in records]),
            LABEL: _objects([self.labels.text(label) for label in labels]),
            LABEL_INDEX: np.asarray([_index(self.labels.index(label)) for label in labels], np.int64),
        }
        errors = _objects([record.error or self._unlabelled(record) for record in records])
        if self.by_label:
            batch[TARGET] = own[LABEL_INDEX]
        return {**batch, **{_OWN + name: values for name, values in own.items()}, ERROR: errors}

    def _unlabelled(self, record: Record) -> str:
        """Why the class of a sample's label cannot be explained; "" where it can, or is not asked for."""
        if not self.by_label or self.labels.index(record.label) is not None:
            return ""
        found = (
            "the sample has no label" if record.label is None else f"no class has the label {record.label!r}"
        )
        return f"{found}. Fix: name the labels after the model's classes, or omit target"

    def _column(self, values: list[Any]) -> Any:
        return np.stack(values) if self.source.stacked else _objects(values)

    # Writing.

    def _take(self, columns: Arrays) -> None:
        """Write a batch of results into its part, and complete the part with its last batch."""
        columns = {name.removeprefix(_OWN): values for name, values in columns.items()}
        first = int(columns[POSITION][0])
        while first >= self._writers[0].start + self.part_size:
            self._finish()
        writer = self._writers[0]
        errors = columns[ERROR]
        failures = [
            Failure(str(columns[ID][row]), int(columns[POSITION][row]), str(error))
            for row, error in enumerate(errors)
            if error
        ]
        if failures and self.fail_fast:
            raise SampleFailed(
                f"sample {failures[0].id!r} (position {failures[0].position}): {failures[0].reason}"
            )
        rows = [row for row, error in enumerate(errors) if not error]
        writer.add(rows_of(self.schema, columns, rows) if rows else None, failures)
        for failure in failures:
            self.watcher.failed(failure)
        self._tell()
        if writer.samples == (self._length(writer.number) or self.part_size):
            self._finish()

    def _finish(self) -> None:
        """Complete the first part in work, and the list of errors with it."""
        writer = self._writers.pop(0)
        if not writer.samples:
            return
        part = writer.finish()
        self._parts[part.number] = part
        self._complete += part.samples
        if part.failures:
            write_errors(self.folder, self.shard, self.failures)
        self.watcher.finished(part)

    def _keep(self) -> None:
        while self._writers:
            self._writers.pop(0).keep()

    def _discard(self) -> None:
        while self._writers:
            self._writers.pop(0).discard()

    def _remove_remains(self) -> None:
        """Remove files of parts that a killed run was writing."""
        for path in self.folder.glob(f".part-{self.shard:04d}-*.tmp"):
            path.unlink()

    @property
    def done(self) -> int:
        """The samples of the shard that are explained or failed, those of parts in work included."""
        return self._complete + sum(writer.samples for writer in list(self._writers))

    def _tell(self) -> None:
        self.watcher.progress(self.done, self.total)

    def _interrupted(self) -> Interrupted:
        of = f" of {self.total:,}" if self.total else ""
        return Interrupted(
            f"{self.done:,}{of} samples are done and kept in {self.folder}. To continue: make the same call again",
            self.done,
            self.total,
        )


def _objects(values: list[Any]) -> np.ndarray:
    found = np.empty(len(values), object)
    for index, value in enumerate(values):
        found[index] = value
    return found


def _index(value: int | None) -> int:
    return -1 if value is None else value
