"""The protocol of an engine: it explains batches in order, on this process, on others, or on other machines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

from analyzer.data.batch_explainer import BatchExplainer
from analyzer.errors import AnalysisError
from analyzer.types import Arrays


class WorkerLost(AnalysisError):
    """Workers ended in the middle of one batch again and again, such as for want of memory."""


class Engine(Protocol):
    """Where batches are explained.

    `map` yields (index, columns) of every batch in the order of `batches`, index counting from 0: the results of
    `explainer(batch)`. Use it in a for loop, and close the iterator, `contextlib.closing(engine.map(…))`, where the
    loop may be left early.

    - A batch is {column: values}, as `BatchExplainer` takes it. The engine copies it where it goes to another process.
    - At most a few batches are read ahead and in work: `batches` is advanced by a thread of the engine as results are
      taken, so that reading overlaps with computing. An error of `batches` is raised by `map` after the results of the
      batches before it.
    - An error that the explainer raises, which concerns all samples, is raised by `map`, and nothing more is explained.
    - Ctrl-C, which reaches the main thread: `map` raises KeyboardInterrupt while it waits; workers ignore the signal.
      `stop()` lets `map` end in order instead: no further batch is begun, those in work are finished and yielded.
      A handler of SIGINT calls it, and the loop then ends by itself. An engine that was stopped stays so.
    - A worker that is killed is noticed, and another one does its batch; after several tries WorkerLost is raised.
    - When `map` ends, or its iterator is closed, all workers that it started have ended.
    """

    def map(
        self, explainer: BatchExplainer, batches: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[int, Arrays]]:
        """Yield the index and the columns of every batch, in order."""

    def stop(self) -> None:
        """Begin no further batch. May be called from a signal handler, and more than once."""
