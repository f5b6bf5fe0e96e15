"""Compute a call on a batch, in pieces where the file fixes their size or memory bounds it.

From a model on a backend, a Call and checked feeds to the results for all samples. A memory budget cuts a batch only
where that changes no result: in each the samples lie on an axis of their own, and two of them run together give what
each gives alone. What must not be cut is computed whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from analyzer.backends.planning import Call, ample, fitting, place_of, planned, steady
from analyzer.graph import Graph
from analyzer.samples import Place, batched_inputs, samples_in

if TYPE_CHECKING:
    from analyzer.backends.base import Arrays, Differentiable

Progress = Callable[[int, int], None]
"""Called with what is done and with all there is to do."""

# Relative L2 of what two samples give together and alone: rounding leaves 1e-6, a mixture of samples far more.
_INDEPENDENT = 1e-3


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
    joined = {}
    for name in list(pieces[0]):
        # Each part is let go of with its joining: results may be the larger part of all memory.
        parts = [piece.pop(name) for piece in pieces]
        place = _stated_place(fn, name, parts[0], size) if places is None else places.get(name, Place(0))
        joined[name] = parts[0] if place is None else place.joined(parts, size, total)
    return joined


def batches(graph: Graph, feeds: Arrays, size: int) -> Iterator[tuple[Arrays, np.ndarray]]:
    """Pieces of `size` samples, and which these are; the last piece is filled up with the last sample."""
    total, batched = samples_in(graph, feeds), batched_inputs(graph)
    for start in range(0, total, size):
        rows = np.minimum(np.arange(start, start + size), total - 1)
        yield {name: array[rows] if name in batched else array for name, array in feeds.items()}, rows


def _computed(fn: Differentiable, call: Call, feeds: Arrays, rows: np.ndarray | None) -> Arrays:
    """The results on a piece; rows: the samples that it holds, None for all."""
    if call.request is None or call.seed is None:
        return fn.engine.forward(feeds, call.names)
    return fn.engine.evaluate(call.request, feeds, call.seed if rows is None else call.seed.rows(rows))


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
    if found is None or found.places is None or fits >= total or not _independent(fn, call, feeds):
        return total, None
    # Of one size: a runtime lays out its memory for each size anew.
    size = math.ceil(total / math.ceil(total / fits))
    fn.plans["fitted", call.key] = size * times
    return size, found.places


def _independent(fn: Differentiable, call: Call, feeds: Arrays) -> bool:
    """Whether the first and the last sample give together what each gives alone."""
    names = call.names if call.seed is None else call.seed.outputs
    key = ("independent", names)
    if key not in fn.plans:
        batched = batched_inputs(fn.graph)

        def forward(rows: list[int]) -> Arrays:
            return fn.engine.forward({n: a[rows] if n in batched else a for n, a in feeds.items()}, names)

        together, first, last = forward([0, -1]), forward([0]), forward([-1])
        fn.plans[key] = all(
            _close(together[name], _place_in(fn, name).joined([first[name], last[name]], 1, 2))
            for name in names
        )
    return bool(fn.plans[key])


def _place_in(fn: Differentiable, name: str) -> Place:
    return fn.places.get(name) or Place(0)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    if found.shape != expected.shape:
        return False
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    scale = np.linalg.norm(expected.astype(np.float64))
    return bool(np.linalg.norm(found.astype(np.float64) - expected) <= _INDEPENDENT * scale)
