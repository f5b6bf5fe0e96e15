"""The source backend for a view of its graph: arrays are moved on their way to the network and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from analyzer.backends.native import Measured, Native
from analyzer.graph.graph import Graph
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.graph.samples.view import stated, unstated
from analyzer.target.target import Seed
from analyzer.types import Arrays

if TYPE_CHECKING:
    from analyzer.backends.source.source import SourceBackend


class ArrangedSource(Native):
    """A SourceBackend whose inputs and outputs have the samples along axis 0."""

    name = "source"

    def __init__(self, whole: SourceBackend, graph: Graph, arrangement: Arrangement) -> None:
        super().__init__(graph, whole.framework)
        self.costs = whole.costs
        self._whole = whole
        self._arrangement = arrangement
        self._moved = {*arrangement.spans, *arrangement.wrapped}

    @property
    def batch(self) -> int | None:
        """The number of samples that it must be fed."""
        return super().batch if self._arrangement.wrapped else super().batch or self._whole.batch

    def known(self, feeds: Mapping[str, np.ndarray]) -> Collection[str]:
        """The tensors that the source has, under the names of the view."""
        own = self._whole.known(self._back(feeds))
        found = {name for name in own if name in self.graph.tensors}
        return {*found, *(stated(name) for name in own if name in self._moved), *self.graph.inputs}

    def forward(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> Arrays:
        """The values of these tensors."""
        wanted = [name for name in names if name not in feeds]
        found = self._whole.forward(self._back(feeds), [*dict.fromkeys(map(unstated, wanted))])
        return {
            name: feeds[name] if name in feeds else self._first(name, found[unstated(name)]) for name in names
        }

    def measure(
        self, feeds: Mapping[str, np.ndarray], seed: Seed, values: Sequence[str], wrt: Sequence[str]
    ) -> Measured:
        """The seed's whole outputs, values and gradients, by the source's own framework."""
        raw = cast("Seed", _RawSeed(seed, self))
        fed = self._back(feeds)
        # The network computes no values of its inputs.
        computed = [name for name in dict.fromkeys(map(unstated, values)) if name not in fed]
        found = self._whole.measure(fed, raw, computed, list(dict.fromkeys(map(unstated, wrt))))
        known = {**found.values, **fed}
        return Measured(
            {name: self._first(name, found.outputs[unstated(name)]) for name in seed.outputs},
            {name: self._first(name, known[unstated(name)]) for name in values},
            [{name: self._first(name, one[unstated(name)]) for name in wrt} for one in found.gradients],
        )

    def cut(self, graph: Graph) -> Native:
        """The network run from inner tensors of the view on."""
        return ArrangedSource(self._whole.cut(graph), graph, self._arrangement)

    def _back(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        return self._arrangement.all_back(feeds)

    def _first(self, name: str, array: np.ndarray) -> np.ndarray:
        return self._arrangement.first(name, array) if name in self._moved else array


@dataclass(frozen=True)
class _RawSeed:
    """A seed of a view in the axes of the network."""

    seed: Seed
    view: ArrangedSource

    @property
    def outputs(self) -> tuple[str, ...]:
        return tuple(map(unstated, self.seed.outputs))

    def cotangents(self, ys: Mapping[str, Any]) -> list[Arrays]:
        names = {unstated(name): name for name in self.seed.outputs}
        moved = {
            names[name]: self.view._first(names[name], array) for name, array in ys.items() if name in names
        }
        return [
            {unstated(name): self._back(name, array) for name, array in one.items()}
            for one in self.seed.cotangents(moved)
        ]

    def _back(self, name: str, array: np.ndarray) -> np.ndarray:
        return self.view._arrangement.back(name, array) if name in self.view._moved else array
