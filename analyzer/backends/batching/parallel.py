"""Divide a batch into micro-batches that run in parallel, one thread each, where that is faster.

ONNX Runtime spreads every node over its threads, which wait for one another after each node. Where a batch has a few
samples for every thread, micro-batches take 10 to 20 % less time: measured on the gradients of a convolutional network
and of a transformer. As when memory splits a batch, the samples must not depend on one another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from analyzer.backends.batching.arranging import decide
from analyzer.backends.batching.planning import Call, forward_bytes, plan
from analyzer.graph.batch_axis import Place, samples_in
from analyzer.graph.samples.arrangement import INDEPENDENT

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Backend, Differentiable
    from analyzer.types import Arrays

# More samples in a run gain nothing from the processor's cache; measured between 1 and 8.
_AT_ONCE = 4
# Smaller calls end before threads begin. Larger weights take longer than samples, and a second copy of them is held.
_LEAST_TENSORS, _MOST_WEIGHTS = 64 * 2**20, 2**28
# The share of the threads' time that may pass idle while the last runs end.
_IDLE = 0.2

Item = TypeVar("Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Parallel:
    """engine: computes on one thread, and may be called from several. size: samples of a micro-batch."""

    engine: Backend
    threads: int
    size: int
    places: Mapping[str, Place]

    def map(self, compute: Callable[[Item], _Result], micro_batches: Iterable[Item]) -> list[_Result]:
        """Return the results of all micro-batches. An interrupt waits for the runs that have begun, no others."""
        pool = ThreadPoolExecutor(self.threads)
        try:
            return list(pool.map(compute, micro_batches))
        finally:
            pool.shutdown(cancel_futures=True)


def in_parallel(fn: Differentiable, call: Call, feeds: Arrays) -> Parallel | None:
    """Return how a batch is divided over threads; None where it is computed as a whole."""
    single, samples = fn.engine.single, samples_in(fn.graph, feeds)
    if single is None or fn.engine.batch is not None or samples < 2:
        return None
    engine, threads = single
    size = _run_size(samples, threads)
    weights, each = forward_bytes(fn, feeds)
    if size is None or samples * each < _LEAST_TENSORS or weights > _MOST_WEIGHTS:
        return None
    found = plan(fn, call, feeds)
    if found is None or found.places is None or not independent(fn, call, feeds):
        return None
    return Parallel(engine, threads, size, found.places)


def _run_size(samples: int, threads: int) -> int | None:
    """Return the samples of each run that keep all threads busy; None where no number does."""
    if threads < 2:
        return None
    rounds = math.ceil(samples / (threads * _AT_ONCE))
    size = math.ceil(samples / (threads * rounds))
    busy = samples / (threads * size * math.ceil(math.ceil(samples / size) / threads))
    return size if busy >= 1 - _IDLE else None


def independent(fn: Differentiable, call: Call, feeds: Arrays) -> bool:
    """Return whether the samples, along axis 0 of the inputs, do not depend on one another."""
    if fn.arrangement is not None:
        return fn.arrangement.samples == INDEPENDENT
    found = decide(fn, feeds, call.names if call.seed is None else call.seed.outputs)
    plain = not (found.wrapped or found.alone or found.tried or found.spans.keys() & set(feeds))
    return found.samples == INDEPENDENT and plain
