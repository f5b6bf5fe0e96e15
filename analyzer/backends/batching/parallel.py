"""A batch as several runs side by side, each on one thread: when that is faster, and how the batch is divided.

ONNX Runtime spreads every node over its threads and has them meet after each; what lies between two nodes goes through
memory. Where a batch has a few samples for every thread, each thread does better with samples of its own: measured, 10
to 20 % of the time of a convolutional network's gradients, and of a transformer's. As when memory cuts a batch, the
samples have to be independent of each other, and each run has the samples along one axis of its results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from analyzer.backends.batching.independence import independent
from analyzer.backends.batching.planning import Call, forward_bytes, planned
from analyzer.graph.batch_axis import Place, samples_in

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Backend, Differentiable
    from analyzer.types import Arrays

# A run of more samples has no more from its processor's cache; measured between 1 and 8.
_AT_ONCE = 4
# Below, a call is over before threads have begun. Above, weights take longer than samples, and are held once more.
_LEAST_TENSORS, _MOST_WEIGHTS = 64 * 2**20, 2**28
# Of the threads' time, what may go by while the last runs end.
_IDLE = 0.2

Item = TypeVar("Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Lanes:
    """engine: computes on one thread, and may be called from several. size: samples of a run."""

    engine: Backend
    threads: int
    size: int
    places: Mapping[str, Place]

    def each(self, compute: Callable[[Item], _Result], pieces: Iterable[Item]) -> list[_Result]:
        """What is computed of each piece, side by side. An interrupt waits for the runs that have begun, no others."""
        pool = ThreadPoolExecutor(self.threads)
        try:
            return list(pool.map(compute, pieces))
        finally:
            pool.shutdown(cancel_futures=True)


def lanes(fn: Differentiable, call: Call, feeds: Arrays) -> Lanes | None:
    """How a batch is computed side by side; None where it is computed at once."""
    single = fn.engine.single
    samples = samples_in(fn.graph, feeds)
    if single is None or fn.engine.batch is not None or samples < 2:
        return None
    engine, threads = single
    size = _run_size(samples, threads)
    weights, each = forward_bytes(fn, feeds)
    if size is None or samples * each < _LEAST_TENSORS or weights > _MOST_WEIGHTS:
        return None
    found = planned(fn, call, feeds)
    if found is None or found.places is None or not independent(fn, call, feeds):
        return None
    return Lanes(engine, threads, size, found.places)


def _run_size(samples: int, threads: int) -> int | None:
    """The samples of each run, for all threads to be busy; None where they would not."""
    if threads < 2:
        return None
    rounds = math.ceil(samples / (threads * _AT_ONCE))
    size = math.ceil(samples / (threads * rounds))
    busy = samples / (threads * size * math.ceil(math.ceil(samples / size) / threads))
    return size if busy >= 1 - _IDLE else None
