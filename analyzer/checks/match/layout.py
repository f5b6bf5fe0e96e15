"""Choose the order of the axes of every pair of tensors of two models.

From the pairs, and the values and graphs of both models, to the same pairs with the order that holds for values and
gradients. The shapes alone leave several orders where axes have one length, such as channels, height and width. Of
orders that make the values equal, and of all orders where none does, the one is chosen that the graphs show: axes are
followed from the inputs, and from pairs of equal values (axes.py). Only where the graphs do not tell, the least
distance decides: a large fault can make a wrong order nearer than the right one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from analyzer.backends.source.matching import Match, alignments, distance_of, equal_values
from analyzer.checks.match.axes import (
    Axes,
    completed,
    follow,
    known,
    named_after,
    regrouped,
    shapes_of,
    sizes_of,
    unnamed,
)
from analyzer.graph.graph import Graph
from analyzer.types import Arrays, Sizes

# An order that is nearer by this factor than that of the graphs is no accident: the graphs were followed wrongly.
CERTAIN = 0.1


@dataclass
class Layouts:
    """The axes of the tensors of two models under common names.

    graphs, values: of the first and the second model, on the same samples. inputs: {input of the second: the input of
    the first, and its axes in the order of the second's}.
    """

    graphs: tuple[Graph, Graph]
    values: tuple[Arrays, Arrays]
    feeds: tuple[Arrays, Arrays]
    inputs: Mapping[str, Match]
    _mine: dict[str, Axes] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        graph, (feeds, _) = self.graphs[0], self.feeds
        self._mine = {name: named_after(name, array.shape) for name, array in feeds.items()}
        shapes = self._shapes(0)
        for node in graph.nodes:
            for name in node.outputs:
                if name in shapes:
                    self._mine[name] = completed(name, follow(graph, node, self._mine, shapes[name]))

    def settled(self, pairs: Sequence[tuple[str, Match]]) -> list[Match]:
        """Return the match of each pair, (tensor of the first model, its match), in the order that is chosen."""
        by_theirs: dict[str, list[int]] = {}
        for index, (_, one) in enumerate(pairs):
            by_theirs.setdefault(one.name, []).append(index)
        found = [one for _, one in pairs]
        graph, shapes = self.graphs[1], self._shapes(1)
        axes: dict[str, Axes] = {}
        for name, one in self.inputs.items():
            axes[name] = tuple(self._mine[one.name][axis] for axis in one.order)
        for node in graph.nodes:
            for name in node.outputs:
                if name not in shapes and name not in by_theirs:
                    continue
                shape = self.values[1][name].shape if name in self.values[1] else shapes.get(name)
                if shape is None:
                    continue
                axes[name] = follow(graph, node, axes, shape)
                for index in by_theirs.get(name, ()):
                    mine = pairs[index][0]
                    found[index] = self._chosen(mine, found[index], axes[name])
                    axes[name] = _carried(self._mine.get(mine), found[index], axes[name])
        return found

    def _shapes(self, side: int) -> dict[str, Sizes]:
        fed = {name: array.shape for name, array in self.feeds[side].items()}
        shapes = shapes_of(self.graphs[side], fed)
        return {**shapes, **{name: array.shape for name, array in self.values[side].items()}}

    def _chosen(self, mine: str, one: Match, theirs: Axes) -> Match:
        """Return the match in the order that the axes show, else in that of the least distance."""
        wanted, offered = self.values[0][mine], self.values[1][one.name]
        ours = self._mine.get(mine, unnamed(wanted.shape))
        batch_first = one.order[:1] == (0,)
        equal = list(equal_values(one.name, offered, wanted, batch_first=batch_first))
        if one.split or len(equal) == 1:
            return one if one.split else equal[0]
        fitting = equal or list(alignments(one.name, offered.shape, wanted.shape))
        best = max((_agreement(found, ours, theirs) for found in fitting), default=-1)
        shown = [found for found in fitting if _agreement(found, ours, theirs) == best]
        if best < 0 and not equal:
            shown = [*_apart(one.name, ours, theirs)] or shown
        if not shown:
            return one
        distances = {found: distance_of(found, offered, wanted) for found in (*shown, *fitting)}
        chosen = min(shown, key=lambda found: distances[found])
        nearest = min(fitting, key=lambda found: distances[found], default=chosen)
        return nearest if distances[nearest] < CERTAIN * distances[chosen] else chosen


def _agreement(match: Match, ours: Axes, theirs: Axes) -> int:
    """Return how many axes have one name on both sides; negative where the names contradict."""
    same = other = 0
    for axis, index in zip(ours, match.order, strict=True):
        if index < len(match.kept):
            counterpart = theirs[match.kept[index]]
            if known(axis) and known(counterpart):
                same, other = same + (axis == counterpart), other + (axis != counterpart)
    return -other if other else same


def _apart(name: str, ours: Axes, theirs: Axes) -> Iterator[Match]:
    """Yield the match of tensors that have merged the same axes in another order, the samples first."""
    (mine, left), (other, right) = (([*axes[0]], [f for a in axes[1:] for f in a]) for axes in (ours, theirs))
    names = [factor for factor, _ in left]
    if mine != other or len(mine) != 1 or len(set(names)) < len(names) or sorted(left) != sorted(right):
        return
    if all(names):
        order = (0, *(1 + right.index(factor) for factor in left))
        split, joined = tuple(size for _, size in right), sizes_of(ours)[1:]
        yield Match(name, order, tuple(range(len(order))), split, joined)


def _carried(ours: Axes | None, match: Match, theirs: Axes) -> Axes:
    """Return the axes of a tensor of the second model as those of its counterpart in the first."""
    if ours is None:
        return theirs
    if match.split:
        sizes = [match.split[index - 1] for index in match.order[1:]]
        apart = regrouped(ours[1:], sizes)
        back = np.argsort(match.order[1:])
        return (ours[0], *regrouped(tuple(apart[index] for index in back), sizes_of(theirs)[1:]))
    found = list(theirs)
    for axis, index in zip(ours, match.order, strict=True):
        if index < len(match.kept):
            found[match.kept[index]] = axis
    return tuple(found)
