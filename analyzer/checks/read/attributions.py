"""The attributions of the samples that differ most, kept for a page to draw.

From readings of several sides to a few samples of each: FullGrad's maps, Integrated Gradients and the inputs that they
speak of. Bounded: MOST_SAMPLES, fewer where they would take more than MOST_BYTES, none where one alone does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from analyzer.checks.read.reading import Reading
from analyzer.types import Arrays
from converters.model import Preprocessing

MOST_SAMPLES = 3
MOST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Attributions:
    """What the sides say of K samples.

    samples: their positions in the batch, that which differs most first. inputs: {attributed tensor: (K, …)}. maps:
    {side: {tensor: (K, *spatial)}}, FullGrad's. integrated: {side: {tensor: (K, …)}}, empty where Integrated Gradients
    were left out. preprocessing: how a photograph became the input, where the model tells.
    """

    samples: tuple[int, ...]
    inputs: Arrays
    maps: Mapping[str, Arrays]
    integrated: Mapping[str, Arrays]
    preprocessing: Preprocessing | None = None


def worst_attributions(
    names: Sequence[str],
    readings: Sequence[Reading],
    integrated: Sequence[Arrays],
    roots: Sequence[str],
    preprocessing: Preprocessing | None = None,
) -> Attributions | None:
    """The attributions of the samples at which two sides are furthest apart; None where nothing can be kept."""
    maps = [_by_root(reading.maps, roots) for reading in readings]
    count = len(next(iter(maps[0].values())))
    inputs = {name: readings[0].side.values[name] for name in roots if name in readings[0].side.values}
    kept = [inputs, *maps, *integrated]
    size = sum(array.nbytes // max(_rows(array), 1) for arrays in kept for array in arrays.values())
    most = min(MOST_SAMPLES, MOST_BYTES // max(size, 1))
    samples = _furthest_first([*_pairs(maps), *_pairs(integrated)], count)[:most]
    if not samples:
        return None

    def chosen(arrays: Arrays) -> Arrays:
        return {name: _taken(array, samples, count) for name, array in arrays.items()}

    return Attributions(
        samples,
        chosen(inputs),
        dict(zip(names, map(chosen, maps), strict=True)),
        dict(zip(names, map(chosen, integrated), strict=True)) if integrated else {},
        preprocessing,
    )


def _by_root(maps: Arrays, roots: Sequence[str]) -> Arrays:
    """Maps under the names of the tensors that they speak of, not of the rows: see `reading.maps_of`."""
    return {
        roots[0] if name == "map" else name.removeprefix("map of "): drawn for name, drawn in maps.items()
    }


def _pairs(sides: Sequence[Arrays]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(a[name], b[name]) for a, b in combinations(sides, 2) for name in a if name in b]


def _furthest_first(pairs: Sequence[tuple[np.ndarray, np.ndarray]], count: int) -> tuple[int, ...]:
    """The samples, sorted by the largest relative L2 between two sides."""
    apart = np.zeros(count)
    for a, b in pairs:
        # An array without the axis of samples tells none from another.
        if a.ndim and _rows(a) == count:
            apart = np.maximum(apart, _relative_l2(a, b))
    return tuple(int(index) for index in np.argsort(-apart, kind="stable"))


def _relative_l2(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """By sample: (N, …) and (N, …) to (N,). What is not finite is infinitely far."""
    left, right = (array.reshape(len(array), -1).astype(np.float64) for array in (a, b))
    sizes = np.maximum(np.linalg.norm(left, axis=1), np.linalg.norm(right, axis=1))
    distances = np.linalg.norm(left - right, axis=1) / np.maximum(sizes, np.finfo(np.float64).tiny)
    return np.where(np.isfinite(distances), distances, np.inf)


def _rows(array: np.ndarray) -> int:
    """Return the size of the first axis, 1 for an array without axes."""
    return array.shape[0] if array.ndim else 1


def _taken(array: np.ndarray, samples: Sequence[int], count: int) -> np.ndarray:
    if array.ndim and _rows(array) == count:
        return array[list(samples)]
    return np.broadcast_to(array, (len(samples), *array.shape)).copy()
