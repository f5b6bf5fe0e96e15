"""Statistics of the maps of a data set, in one pass and with bounded memory.

From maps (h, w), with the class that each explains, to the mean map of every class, how concentrated each map is, and
which explanations of one class are the most alike and the most different.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

# A map is compared with others as this many cells a side: small shifts do not count.
_CELLS = 8
# Pairs of more samples of one class than these are not all compared; the samples are then spread evenly.
MOST_COMPARED = 1000
# A mean map is kept at this size at most.
_LONGEST_SIDE = 64


def area_of_half(values: np.ndarray) -> float:
    """Return the smallest share of the elements that holds half of the absolute sum of a map; NaN of a map of zeros.

    It is 0.5 for a constant map, and near 0 if a few elements hold everything.
    """
    sizes = np.sort(np.abs(values.astype(np.float64)).ravel())[::-1]
    total = sizes.sum()
    if not np.isfinite(total) or total <= 0:
        return float("nan")
    held = np.cumsum(sizes)
    return float(np.searchsorted(held, 0.5 * total * (1 - 1e-12)) + 1) / sizes.size


def share_inside(values: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of a map's absolute sum inside a mask in [0, 1] of its shape; NaN of a map of zeros."""
    sizes = np.abs(values.astype(np.float64))
    total = float(sizes.sum())
    return float((sizes * mask).sum() / total) if total > 0 else float("nan")


def in_cells(values: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the sums of an array over a grid of equal cells. An element that lies in two cells is divided by area."""
    for axis, (size, cells) in enumerate(zip(values.shape, shape, strict=True)):
        edges = np.arange(cells + 1) * (size / cells)
        low, high = (
            np.clip(edges[:, None] - np.arange(size), 0, 1)[part] for part in (slice(-1), slice(1, None))
        )
        values = np.moveaxis(np.tensordot(high - low, values, axes=(1, axis)), 0, axis)
    return values


@dataclass(frozen=True)
class MapPair:
    """Two samples by their places in the results, and the correlation of their maps."""

    first: int
    second: int
    correlation: float


@dataclass
class ClassMaps:
    """The maps that explain one class. Each map counts the same: it is divided by its absolute sum."""

    places: list[int] = field(default_factory=list)
    cells: list[np.ndarray] = field(default_factory=list)
    total: np.ndarray | None = None

    @property
    def mean(self) -> np.ndarray | None:
        """(h, w): the mean of the maps; None where there is no map."""
        return None if self.total is None else self.total / len(self.places)

    def add(self, place: int, values: np.ndarray) -> None:
        """Count a map."""
        size = np.abs(values).sum()
        if not np.isfinite(size) or size <= 0:
            return
        scaled = values / size
        if self.total is None:
            self.total = np.zeros([min(side, _LONGEST_SIDE) for side in values.shape])
        if self.total.ndim != values.ndim:
            return
        self.total += in_cells(scaled, self.total.shape)
        self.places.append(place)
        self.cells.append(in_cells(scaled, [min(side, _CELLS) for side in values.shape]).astype(np.float32))

    def extremes(self) -> tuple[MapPair, MapPair] | None:
        """Return the most similar and the most different pair of samples; None of fewer than two that vary."""
        shape = self.cells[0].shape if self.cells else ()
        kept = [place for place, cells in enumerate(self.cells) if cells.shape == shape and cells.std() > 0]
        if len(kept) > MOST_COMPARED:
            spread = np.linspace(0, len(kept) - 1, MOST_COMPARED).round().astype(int)
            kept = [kept[place] for place in spread]
        if len(kept) < 2:
            return None
        rows = np.stack([self.cells[place].ravel() for place in kept]).astype(np.float64)
        rows -= rows.mean(axis=1, keepdims=True)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        alike = rows @ rows.T
        above = np.triu_indices(len(kept), 1)
        order = alike[above]

        def pair(at: int) -> MapPair:
            first, second = (self.places[kept[int(side[at])]] for side in above)
            return MapPair(first, second, float(order[at]))

        return pair(int(order.argmax())), pair(int(order.argmin()))
