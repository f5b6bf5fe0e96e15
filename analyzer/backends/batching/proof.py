"""Prove by structure where the samples of a guess lie: at concrete sizes, with rules that keep samples apart.

From a Differentiable, a guess of the axes and the shapes of its inputs to a Proof, which tells the place of the samples
in every tensor on the way, or the first tensor that mixes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from analyzer.graph.graph import Graph
from analyzer.graph.samples.follow import Followed, SizesOf, follow, sizes_at
from analyzer.graph.samples.guesses import Guess
from analyzer.graph.samples.labels import Span, along
from analyzer.graph.sized import graph_at
from analyzer.types import Sizes
from converters.errors import ConversionError

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable

_LABELLED = 3
"""Samples that are told apart where any number may be fed."""


@dataclass(frozen=True)
class Proof:
    """What following the samples of a guess through the graph gave, at the sizes `sizes`."""

    followed: Followed
    graph: Graph
    sizes: SizesOf

    def spans(self, outputs: Sequence[str]) -> dict[str, Span] | None:
        """Where the samples lie in the outputs; None where one of them mixes them, or holds none."""
        found = {name: self.followed.span(name, self.sizes) for name in outputs}
        return None if None in found.values() else {n: span for n, span in found.items() if span is not None}

    def inner(self) -> dict[str, tuple[Span, Sizes]]:
        """Where the samples lie in the tensors on the way."""
        found = {}
        for name in self.followed.labels:
            span, sizes = self.followed.span(name, self.sizes), self.sizes(name)
            if span is not None and sizes is not None:
                found[name] = (span, sizes)
        return found


def prove(
    fn: Differentiable, guess: Guess, shapes: Mapping[str, Sizes], outputs: Sequence[str]
) -> Proof | None:
    """Follow the samples of a guess through the graph; None where the graph does not take another number of them."""
    graph = fn.graph
    name, axis = next(iter(guess.items()))
    stated, given = stated_size(graph, name, axis), shapes[name][axis]
    fixed = isinstance(stated, int) and stated > 1
    for samples in dict.fromkeys((given,) if fixed else (_LABELLED, given)):
        if samples < 2:
            continue
        resized = resize(graph, guess, shapes, samples)
        labels = {one: along(k, len(shapes[one]), samples) for one, k in guess.items()}
        symbols = {
            symbol: size
            for one, shape in resized.items()
            for symbol, size in zip(graph.tensors[one].shape or (), shape, strict=False)
            if isinstance(symbol, str)
        }
        proof = Proof(*_followed(graph, sizes_at(graph, symbols), labels, samples, outputs))
        # The sizes that a file states are those of its own batch.
        if (fixed or not isinstance(stated, int)) and proof.spans(outputs) is not None:
            return proof
        try:
            at = graph_at(graph, resized, outputs)
        except (ConversionError, AssertionError):
            continue
        return Proof(*_followed(at, sizes_at(at, {}), labels, samples, outputs))
    return None


def _followed(
    graph: Graph, sizes: SizesOf, labels: Mapping[str, np.ndarray], samples: int, outputs: Sequence[str]
) -> tuple[Followed, Graph, SizesOf]:
    given = {name: own for name, own in labels.items() if name in graph.tensors}
    return follow(graph, sizes, given, samples, [n for n in outputs if n in graph.tensors]), graph, sizes


def resize(graph: Graph, guess: Guess, shapes: Mapping[str, Sizes], samples: int) -> dict[str, Sizes]:
    """The shapes of the inputs for so many samples; axes of the same symbol go along."""
    symbols = {stated_size(graph, name, axis) for name, axis in guess.items()}

    def counts(name: str, axis: int) -> bool:
        symbol = stated_size(graph, name, axis)
        return guess.get(name) == axis or (isinstance(symbol, str) and symbol in symbols)

    return {
        name: tuple(samples if counts(name, axis) else size for axis, size in enumerate(shape))
        for name, shape in shapes.items()
    }


def stated_size(graph: Graph, name: str, axis: int) -> int | str | None:
    """The size of an axis as the file states it."""
    shape = graph.tensors[name].shape
    return None if shape is None else shape[axis]
