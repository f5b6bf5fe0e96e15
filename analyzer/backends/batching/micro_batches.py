"""Compute a call on a batch, in micro-batches where the model states its batch, or memory or `batch_size` limits it.

From a model on a backend, a Call and checked feeds to the results for all samples. A batch is split only where that
changes no result: the samples do not depend on one another, and each result has them along one axis. Any other batch
is computed as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from analyzer.backends.batching.parallel import in_parallel, independent
from analyzer.backends.batching.planning import (
    FITTED,
    Call,
    ample,
    checkpointing,
    fitted_key,
    fitting,
    forward_bytes,
    place_of,
    plan,
)
from analyzer.graph.batch_axis import Place, batched_inputs, samples_in
from analyzer.graph.graph import Graph
from analyzer.types import Progress

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Backend, Differentiable
    from analyzer.types import Arrays

_STEADY = 256 * 2**20
"""Bytes of a forward pass after which progress is reported."""


def run(fn: Differentiable, call: Call, feeds: Arrays, progress: Progress | None = None) -> Arrays:
    """Return the results of a call for all samples. progress: called with the samples done after every micro-batch.

    Raises NotEnoughMemory where a single sample, or a batch that the model states, does not fit.
    """
    fn = checkpointing(fn, call, feeds)
    total, size = samples_in(fn.graph, feeds), fn.engine.batch
    places: Mapping[str, Place] | None = None
    if size is None:
        _, each = forward_bytes(fn, feeds)
        size, places = split(fn, call, feeds, max(1, _STEADY // max(each, 1)) if progress else total)
    elif not ample(fn, feeds, size, fn.max_memory) and (found := plan(fn, call, feeds)) is not None:
        # A stated batch cannot be split: it fits, or is refused.
        fitting(fn, call, found, fn.max_memory)
    if size == total:
        results = _computed(fn, call, feeds, None)
        if progress is not None:
            progress(total, total)
        return results
    parts = []
    for part, rows in batches(fn.graph, feeds, size):
        parts.append(_computed(fn, call, part, rows))
        if progress is not None:
            progress(int(rows[-1]) + 1, total)
    return _joined(fn, parts, places, size, total)


def batches(graph: Graph, feeds: Arrays, size: int) -> Iterator[tuple[Arrays, np.ndarray]]:
    """Yield micro-batches of `size` samples, and their rows; the last is filled up with the last sample."""
    total, batched = samples_in(graph, feeds), batched_inputs(graph)
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        yield {name: array[rows] if name in batched else array for name, array in feeds.items()}, rows


def split(
    fn: Differentiable, call: Call, feeds: Arrays, at_most: int, times: int = 1
) -> tuple[int, Mapping[str, Place] | None]:
    """Return the size of the micro-batches, and where the samples lie in each result; all samples for a whole batch.

    at_most: the highest size, even where memory holds more. times: how often the memory of the call is needed.
    """
    total = samples_in(fn.graph, feeds)
    # A batch_size is the caller's own plan of memory.
    planned = fn.batch_size is None or fn.max_memory is not None
    at_most = min(at_most, total, fn.batch_size or total)
    if fn.engine.batch is not None or (
        at_most == total and (not planned or ample(fn, feeds, times * total, fn.max_memory))
    ):
        return total, None
    found = plan(fn, call, feeds)
    if found is None:
        return total, None
    fits = max(1, fitting(fn, call, found, fn.max_memory) // times) if planned else total
    size = min(at_most, fits)
    if size >= total or found.places is None or not independent(fn, call, feeds):
        return total, None
    # Of one size: a runtime lays out its memory for each size anew.
    size = math.ceil(total / math.ceil(total / size))
    FITTED.of(fn)[fitted_key(fn, call)] = size * times
    return size, found.places


def _computed(fn: Differentiable, call: Call, feeds: Arrays, rows: np.ndarray | None) -> Arrays:
    """Return the results of a micro-batch. rows: its samples; None for all."""
    found = in_parallel(fn, call, feeds)
    if found is None:
        return _evaluated(fn.engine, call, feeds, rows)

    def evaluated(micro_batch: tuple[Arrays, np.ndarray]) -> Arrays:
        part, own = micro_batch
        return _evaluated(found.engine, call, part, own if rows is None else rows[own])

    parts = found.map(evaluated, batches(fn.graph, feeds, found.size))
    return _joined(fn, parts, found.places, found.size, samples_in(fn.graph, feeds))


def _evaluated(engine: Backend, call: Call, feeds: Arrays, rows: np.ndarray | None) -> Arrays:
    if call.request is None or call.seed is None:
        return engine.forward(feeds, call.names)
    return engine.evaluate(call.request, feeds, call.seed if rows is None else call.seed.rows(rows))


def _joined(
    fn: Differentiable, parts: list[Arrays], places: Mapping[str, Place] | None, size: int, total: int
) -> Arrays:
    """Return the results of all samples, from those of micro-batches of `size` samples."""
    joined = {}
    for name in list(parts[0]):
        # Each part is freed once it is joined: results may be most of the memory.
        arrays = [part.pop(name) for part in parts]
        place = _stated_place(fn, name, arrays[0], size) if places is None else places.get(name, Place(0))
        joined[name] = arrays[0] if place is None else place.joined(arrays, size, total)
    return joined


def _stated_place(fn: Differentiable, name: str, array: np.ndarray, size: int) -> Place | None:
    """Return where the samples lie in a result of a stated batch; None for a result of all samples together."""
    place = place_of(fn, name)
    # Such as sum/…, which has one number for each sample.
    if array.shape == (size,) or (place is None and array.shape[:1] == (size,)):
        return Place(0)
    return place
