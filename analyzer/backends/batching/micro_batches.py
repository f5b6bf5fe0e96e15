"""Compute a call on a batch, in pieces where the file fixes their size, memory bounds it or threads go side by side.

From a model on a backend, a Call and checked feeds to the results for all samples. A memory budget cuts a batch only
where that changes no result: in each the samples lie on an axis of their own, and two of them run together give what
each gives alone. What must not be cut is computed whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from analyzer.backends.batching.independence import independent
from analyzer.backends.batching.parallel import lanes
from analyzer.backends.batching.planning import Call, ample, fitting, place_of, planned, steady
from analyzer.graph.batch_axis import Place, batched_inputs, samples_in
from analyzer.graph.graph import Graph
from analyzer.types import Progress

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Backend, Differentiable
    from analyzer.types import Arrays

"""Called with what is done and with all there is to do."""


def run(fn: Differentiable, call: Call, feeds: Arrays, progress: Progress | None = None) -> Arrays:
    """The results of a call for all samples. progress: called with the samples done and all after every piece.

    Raises NotEnoughMemory where a single sample, or a batch that the model states, does not fit.
    """
    tell = progress or (lambda done, total: None)
    total, size = samples_in(fn.graph, feeds), fn.engine.batch
    places: Mapping[str, Place] | None = None
    if size is None:
        size, places = cut(fn, call, feeds, steady(fn, feeds) if progress is not None else total)
    elif not ample(fn, feeds, size, fn.max_memory) and (found := planned(fn, call, feeds)) is not None:
        # A stated batch cannot be cut: it fits, or is refused.
        fitting(fn, call, found.need, fn.max_memory)
    if size == total:
        results = _computed(fn, call, feeds, None)
        tell(total, total)
        return results
    pieces = []
    for part, rows in batches(fn.graph, feeds, size):
        pieces.append(_computed(fn, call, part, rows))
        tell(int(rows[-1]) + 1, total)
    return _joined(fn, pieces, places, size, total)


def batches(graph: Graph, feeds: Arrays, size: int) -> Iterator[tuple[Arrays, np.ndarray]]:
    """Pieces of `size` samples, and which these are; the last piece is filled up with the last sample."""
    total, batched = samples_in(graph, feeds), batched_inputs(graph)
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        yield {name: array[rows] if name in batched else array for name, array in feeds.items()}, rows


def _computed(fn: Differentiable, call: Call, feeds: Arrays, rows: np.ndarray | None) -> Arrays:
    """The results on a piece; rows: the samples that it holds, None for all."""
    found = lanes(fn, call, feeds)
    if found is None:
        return _evaluated(fn.engine, call, feeds, rows)

    def evaluated(piece: tuple[Arrays, np.ndarray]) -> Arrays:
        part, own = piece
        return _evaluated(found.engine, call, part, own if rows is None else rows[own])

    pieces = found.each(evaluated, batches(fn.graph, feeds, found.size))
    return _joined(fn, pieces, found.places, found.size, samples_in(fn.graph, feeds))


def _evaluated(engine: Backend, call: Call, feeds: Arrays, rows: np.ndarray | None) -> Arrays:
    if call.request is None or call.seed is None:
        return engine.forward(feeds, call.names)
    return engine.evaluate(call.request, feeds, call.seed if rows is None else call.seed.rows(rows))


def _joined(
    fn: Differentiable, pieces: list[Arrays], places: Mapping[str, Place] | None, size: int, total: int
) -> Arrays:
    """The results of pieces of `size` samples as those of all."""
    joined = {}
    for name in list(pieces[0]):
        # Each part is let go of with its joining: results may be the larger part of all memory.
        parts = [piece.pop(name) for piece in pieces]
        place = _stated_place(fn, name, parts[0], size) if places is None else places.get(name, Place(0))
        joined[name] = parts[0] if place is None else place.joined(parts, size, total)
    return joined


def _stated_place(fn: Differentiable, name: str, array: np.ndarray, size: int) -> Place | None:
    """Where the samples lie in a result of a piece of the size that the file fixes; None in what is taken once."""
    place = place_of(fn, name)
    # Such as sum/…, which has a number a sample.
    if array.shape == (size,) or (place is None and array.shape[:1] == (size,)):
        return Place(0)
    return place


def cut(
    fn: Differentiable, call: Call, feeds: Arrays, at_most: int, times: int = 1
) -> tuple[int, Mapping[str, Place] | None]:
    """The size of the pieces, and where the samples lie in each result; all samples where they are not cut.

    at_most: the samples of a piece even where memory holds more. times: how often the need of the call is wanted.
    """
    total = samples_in(fn.graph, feeds)
    if fn.engine.batch is not None or (at_most >= total and ample(fn, feeds, times * total, fn.max_memory)):
        return total, None
    found = planned(fn, call, feeds)
    fits = total
    if found is not None:
        fits = min(at_most, max(1, fitting(fn, call, found.need, fn.max_memory) // times))
    if found is None or found.places is None or fits >= total or not independent(fn, call, feeds):
        return total, None
    # Of one size: a runtime lays out its memory for each size anew.
    size = math.ceil(total / math.ceil(total / fits))
    fn.plans["fitted", call.key] = size * times
    return size, found.places
