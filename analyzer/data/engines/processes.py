"""Explain batches in several processes of this machine."""

from __future__ import annotations

import pickle
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from analyzer.data.batch_explainer import BatchExplainer
from analyzer.data.engines.ordered import in_order
from analyzer.data.engines.protocol import WorkerLost
from analyzer.data.engines.reading import reading
from analyzer.data.engines.shares import for_workers
from analyzer.data.engines.worker import Worker, WorkerEnded
from analyzer.errors import AnalysisError
from analyzer.types import Arrays
from converters.system.processes import available_cores

TRIES = 3
"""How often a batch is given to a worker, where workers end before they have answered."""


class ProcessEngine:
    """The engine of several processes. Each has its own session, and its share of processors and memory. See `Engine`.

    A batch in work is held by a thread of this process, which waits for the worker. Models that were made in this
    process travel with their weights, those of a file by its path.
    """

    def __init__(self, workers: int) -> None:
        if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
            raise AnalysisError(f"expected workers of at least 1, got {workers!r}. Fix: give a whole number")
        self._count = workers
        self._stopped = threading.Event()

    def map(
        self, explainer: BatchExplainer, batches: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[int, Arrays]]:
        """Yield the index and the columns of every batch, in order."""
        threads = max(1, available_cores() // self._count)
        crew = _Crew(pickle.dumps(for_workers(explainer, self._count, threads)), threads)
        pool = ThreadPoolExecutor(self._count, thread_name_prefix="worker")
        shown: set[str] = set()

        def result(index: int, task: Future[tuple[Arrays, list[Any]]]) -> Arrays:
            columns, noted = task.result()
            for message, kind in noted:
                if message not in shown:
                    shown.add(message)
                    warnings.warn(message, kind, stacklevel=3)
            return columns

        try:
            with reading(batches, _same, self._count, self._stopped) as source:
                yield from in_order(
                    source,
                    lambda index, batch: pool.submit(crew.explain, index, batch),
                    result,
                    2 * self._count,
                )
        finally:
            crew.close()
            pool.shutdown(cancel_futures=True)

    def stop(self) -> None:
        """Begin no further batch."""
        self._stopped.set()


class _Crew:
    """The workers, one for each thread that waits for one."""

    def __init__(self, explainer: bytes, threads: int) -> None:
        self._explainer, self._threads = explainer, threads
        self._workers: dict[int, Worker] = {}
        self._lock = threading.Lock()
        self._closed = False

    def explain(self, index: int, batch: Mapping[str, Any]) -> tuple[Arrays, list[Any]]:
        """Return the columns of a batch and the warnings. Raises WorkerLost where workers end again and again."""
        ends: list[str] = []
        while len(ends) < TRIES:
            try:
                return self._worker().explain(batch)
            except WorkerEnded as error:
                self._dismiss()
                if self._closed:
                    raise
                ends.append(str(error))
        raise WorkerLost(
            f"{TRIES} workers, one after another, ended before they had explained batch {index}: {ends[-1]}. Fix: "
            "smaller batches or fewer workers where memory is short, or workers=0 to see the error"
        )

    def close(self) -> None:
        """End all workers, those that are at work at once."""
        with self._lock:
            self._closed = True
            workers = list(self._workers.values())
            self._workers.clear()
        for worker in workers:
            worker.close()

    def _worker(self) -> Worker:
        """The worker of this thread."""
        own = threading.get_ident()
        with self._lock:
            if self._closed:
                raise WorkerEnded("the work is over")
            if own not in self._workers:
                self._workers[own] = Worker(self._explainer, self._threads)
            return self._workers[own]

    def _dismiss(self) -> None:
        with self._lock:
            worker = self._workers.pop(threading.get_ident(), None)
        if worker is not None:
            worker.close()


def _same(batch: Mapping[str, Any]) -> Mapping[str, Any]:
    return batch
