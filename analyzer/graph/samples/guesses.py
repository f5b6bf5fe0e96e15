"""Guesses of which axis of each input counts the samples, the likeliest first.

From a graph and the shapes of its inputs to dictionaries {input: axis}; an input that is left out is shared by all
samples. Each guess is to be proved; none is true by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import islice, product

from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.graph import Graph
from analyzer.types import Sizes

Guess = Mapping[str, int]

MOST = 64
"""Guesses that are tried."""


def first_axes(graph: Graph, shapes: Mapping[str, Sizes]) -> Guess | None:
    """The guess that methods make without proof: axis 0. None where the inputs differ in its size."""
    batched = batched_inputs(graph)
    if not batched or len({shapes[name][0] for name in batched}) > 1:
        return None
    return dict.fromkeys(batched, 0)


def guesses(graph: Graph, shapes: Mapping[str, Sizes]) -> list[Guess]:
    """All guesses, at most MOST."""
    plain = first_axes(graph, shapes)
    found = [] if plain is None or _leaves_out(graph, shapes, plain) else [plain]
    for guess in islice(_others(graph, shapes), MOST):
        if (
            guess not in found
            and not _counts_features(graph, shapes, guess)
            and not _leaves_out(graph, shapes, guess)
        ):
            found.append(guess)
    return found


def _leaves_out(graph: Graph, shapes: Mapping[str, Sizes], guess: Guess) -> bool:
    """Return whether an axis with the symbol of the samples lies in an input that the guess takes for shared."""
    symbols = {_stated(graph, name, axis) for name, axis in guess.items()}
    symbols = {one for one in symbols if isinstance(one, str)}
    others = [name for name in graph.inputs if name not in guess]
    return any(not symbols.isdisjoint(graph.tensors[name].shape or ()) for name in others)


def _counts_features(graph: Graph, shapes: Mapping[str, Sizes], guess: Guess) -> bool:
    """Return whether a guess takes the last axis of floats for the samples: features may be independent, too.

    An axis with the symbol of another input's first axis does not count features.
    """
    first = {_stated(graph, name, 0) for name, axis in guess.items() if axis == 0}
    named = {one for one in first if isinstance(one, str)}
    return any(
        axis
        and axis == len(shapes[n]) - 1
        and graph.tensors[n].is_float
        and _stated(graph, n, axis) not in named
        for n, axis in guess.items()
    )


def _others(graph: Graph, shapes: Mapping[str, Sizes]) -> Iterator[Guess]:
    """One axis of one input, and of every other input an axis of the same size, or none."""
    leading = sorted(graph.inputs, key=lambda name: not graph.tensors[name].is_float)
    for leader in leading[:1]:
        for axis in range(len(shapes[leader])):
            options = [
                [(name, one) for one in _fitting(graph, shapes, (leader, axis), name)]
                for name in graph.inputs
                if name != leader
            ]
            if math.prod(len(one) for one in options) > MOST:
                options = [one[:2] for one in options]
            for chosen in product(*options):
                yield {leader: axis, **{name: one for name, one in chosen if one is not None}}


def _fitting(
    graph: Graph, shapes: Mapping[str, Sizes], leader: tuple[str, int], name: str
) -> list[int | None]:
    """The axes of an input that may count the samples which an axis of another one counts; None for no axis."""
    first, axis = leader
    size, said = shapes[first][axis], _stated(graph, first, axis)
    axes = [
        other
        for other, own in enumerate(shapes[name])
        if own == size and isinstance(_stated(graph, name, other), int) == isinstance(said, int)
    ]
    same = [other for other in axes if not isinstance(said, int) and _stated(graph, name, other) == said]
    return [*same, *(other for other in axes if other not in same), None]


def _stated(graph: Graph, name: str, axis: int) -> int | str | None:
    shape = graph.tensors[name].shape
    return None if shape is None else shape[axis]
