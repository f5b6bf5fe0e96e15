"""Pair two models that should be one function: inputs and outputs with their layout, layers by value.

Names, layouts, the order of a bias and folding differ between frameworks; values do not. A layer of one model is that
of the other whose values are equal up to a permutation of axes, found by fingerprints that a permutation leaves alone
and verified on the values. What is left is paired by its place in the graph where the outputs differ (alignment.py),
and else with what it comes nearest to, so that a layer that went wrong is compared and not overlooked; what has no
counterpart is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice, permutations, product

import numpy as np

from analyzer.backends import Differentiable
from analyzer.backends.source.matching import (
    TOLERANCE,
    Match,
    closest,
    distance_of,
    fingerprint,
    regrouped_values,
    same_values,
)
from analyzer.checks.match.alignment import OtherOps, pair_by_place
from analyzer.checks.match.layers import LayerView
from analyzer.checks.match.layout import Layouts
from analyzer.checks.metrics import relative_distance
from analyzer.errors import InputError, ShapeError
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.channel_axis import channel_axes
from analyzer.graph.graph import Graph, Tensor
from analyzer.target.target import Target
from analyzer.types import Arrays

# Beyond this relative L2 two tensors are no two versions of one layer.
NEAR = 0.5
# Ways to feed the inputs that are tried where several fit.
MOST_LAYOUTS = 24

Pairing = dict[str, Match]


@dataclass(frozen=True)
class Layers:
    """matched: {tensor of a: its counterpart in b}, verified on values; near: paired by their place, or by the least
    distance. unmatched: the layers' outputs of a, and of b, that have no counterpart, in graph order; inner: the
    partial results within a layer that have none.
    """

    matched: Mapping[str, Match]
    near: Mapping[str, Match]
    unmatched: tuple[tuple[str, ...], tuple[str, ...]]
    inner: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def all(self) -> Pairing:
        """Every pair."""
        return {**self.matched, **self.near}


def pair_inputs(feeds: Arrays, b: Graph, given: Mapping[str, str] | None = None) -> Iterator[Pairing]:
    """Every way to feed the inputs of b: {input of b: the input of a, and its axes in b's order}, the likeliest first.

    given: {input of a: input of b} where the caller knows; else inputs of one name, else those whose shape fits.
    Raises InputError or ShapeError where nothing fits.
    """
    known = {theirs: mine for mine, theirs in (given or {}).items()}
    strange = [name for name in known if name not in b.inputs] + [n for n in known.values() if n not in feeds]
    if strange:
        raise InputError(
            f"the first model has no input {strange[0]!r}. Fix: pair inputs of the first model, {', '.join(feeds)}, "
            f"with those of the second, {', '.join(b.inputs)}"
        )
    if len(feeds) != len(b.inputs):
        raise InputError(
            f"the models are fed {len(feeds)} and {len(b.inputs)} inputs: they are not one function. "
            "Fix: give two models of as many inputs"
        )
    same = {name: name for name in b.inputs if name in feeds and name not in known.values()}
    known = {**same, **known}
    others = [name for name in feeds if name not in known.values()]
    choices = []
    for name in b.inputs:
        mine = [known[name]] if name in known else others
        fitting = [
            Match(n, order, tuple(range(len(order))))
            for n in mine
            for order in _orders(b, b.tensors[name], feeds[n])
        ]
        if not fitting:
            shapes = " or ".join(f"{n!r} {feeds[n].shape}" for n in mine)
            raise ShapeError(
                f"no order of the axes of {shapes} makes the input {name!r} {b.tensors[name].shape}. Fix: give "
                "inputs of the sizes of the second model, or pair them with inputs_of_b= (--pair FIRST=SECOND)"
            )
        choices.append(fitting)
    distinct = (
        dict(zip(b.inputs, chosen, strict=True))
        for chosen in product(*choices)
        if len({one.name for one in chosen}) == len(chosen)
    )
    yield from islice(distinct, MOST_LAYOUTS)


def _orders(graph: Graph, wanted: Tensor, array: np.ndarray) -> list[tuple[int, ...]]:
    """The orders of an array's axes that an input takes, its own first.

    Where one that at most moves the channels fits, no other: height exchanged with width is no layout but an error,
    which a square image must not hide.
    """
    every = permutations(range(array.ndim))
    if wanted.shape is None:
        return [tuple(range(array.ndim))]
    stated = (None, *wanted.shape[1:]) if wanted.name in batched_inputs(graph) else wanted.shape

    def fits(order: tuple[int, ...]) -> bool:
        return len(stated) == array.ndim and all(
            array.shape[axis] == size
            for axis, size in zip(order, stated, strict=True)
            if isinstance(size, int)
        )

    fitting = [order for order in every if fits(order)]
    if array.ndim < 4:
        return fitting
    own = tuple(range(array.ndim))
    layouts = (own, (0, *own[2:], 1), (0, own[-1], *own[1:-1]))
    return [order for order in layouts if order in fitting] or fitting


def fed(pairing: Pairing, feeds: Arrays) -> Arrays:
    """The inputs of b."""
    return {
        name: np.asarray(feeds[one.name].transpose(one.order), order="C") for name, one in pairing.items()
    }


def by_inputs_of_a(inputs: Pairing) -> Pairing:
    """{input of a: the input of b that is fed from it}."""
    return {
        one.name: Match(name, tuple(int(axis) for axis in np.argsort(one.order)), one.kept)
        for name, one in inputs.items()
    }


def pair_outputs(ours: Arrays, theirs: Arrays) -> tuple[Pairing, float]:
    """{output of a: its counterpart in b}, by the least distance among those whose shape fits; the mean distance."""
    found: Pairing = {}
    distances = []
    free = dict(theirs)
    for name, value in ours.items():
        fitting = {n: near for n, array in free.items() if (near := closest(n, array, value))}
        if not fitting:
            continue
        # Of equals the one of the same name, else the first.
        best = min(fitting, key=lambda n: (fitting[n][1], n != name))
        found[name], distance = fitting[best]
        distances.append(distance)
        del free[best]
    return found, float(np.mean(distances)) if distances else float("inf")


def channels_kept(a: Graph, b: Graph, inputs: Pairing) -> int:
    """Return of how many inputs the channels become channels, as the layers of both models show them."""
    axes, theirs = channel_axes(a), channel_axes(b)
    return sum(
        one.name in axes and name in theirs and one.order[theirs[name]] == axes[one.name]
        for name, one in inputs.items()
    )


def distance_of_outputs(a: ComparedModel, b: ComparedModel, outputs: Pairing) -> float:
    """Return the mean distance of the paired outputs, in the order of axes that is given."""
    ours, theirs = a.valued(outputs), b.valued(one.name for one in outputs.values())
    distances = [distance_of(one, theirs[one.name], ours[name]) for name, one in outputs.items()]
    return float(np.mean(distances)) if distances else float("inf")


def pair_layers(a: ComparedModel, b: ComparedModel, inputs: Pairing, *, equal: bool) -> Layers:
    """The counterparts of everything that a layer computes, by the values on these inputs.

    inputs: {input of b: of a}. equal: whether the outputs are. What is left is paired by its place, or with what it
    comes nearest to, only where they are not: in models of one function it is a partial result that the other lacks.
    """
    matched: Pairing = {}
    known = by_inputs_of_a(inputs)
    found: tuple[set[str], set[str]] = (set(), set())
    # A layer's output stands for another's before it stands for a partial result.
    for leaving in (True, False):
        for pair in _equal_values(a, b, a.left(found[0], leaving), b.left(found[1], leaving)):
            if pair.mine in found[0] or pair.theirs in found[1]:
                continue
            matched[pair.form] = pair.match
            known[pair.mine] = replace(pair.match, name=pair.theirs)
            found[0].add(pair.mine)
            found[1].add(pair.theirs)
    near = {} if equal else _near(a, b, known, found)
    outer, every = (
        tuple(side.left(seen, leaving) for side, seen in ((a, found[0]), (b, found[1])))
        for leaving in (True, False)
    )
    inner = tuple(
        tuple(name for name in names if name not in seen) for names, seen in zip(every, outer, strict=True)
    )
    return Layers(matched, near, (tuple(outer[0]), tuple(outer[1])), (inner[0], inner[1]))


def _near(a: ComparedModel, b: ComparedModel, known: Pairing, found: tuple[set[str], set[str]]) -> Pairing:
    """Pairs of what values do not tell, the surer first: the same op in the same place, a layer in several nodes there,
    the least distance, any op in the same place. Where no marks show the layers, a dense layer that one model writes
    as a product and a sum is found by the distance of its sum.
    """
    graphs, values = (a.fn.graph, b.fn.graph), (a.values, b.values)
    near: Pairing = {}

    def take(pairs: Pairing) -> None:
        near.update(pairs)
        found[0].update(pairs)
        found[1].update(one.name for one in pairs.values())

    for other_ops in OtherOps:
        take(pair_by_place(graphs, values, {**known, **near}, (a.view, b.view), other_ops=other_ops))
        if other_ops is not OtherOps.NONE:
            take(_nearest(a, b, a.left(found[0], True), b.left(found[1], True)))
    return near


def settled(
    a: ComparedModel, b: ComparedModel, inputs: Pairing, layers: Layers, outputs: Pairing
) -> tuple[Layers, Pairing]:
    """Return layers and outputs, every pair in the order of axes that layout.py chooses. inputs: {input of b: of a}."""
    pairs = [*layers.matched.items(), *layers.near.items(), *outputs.items()]
    values = (a.valued(name for name, _ in pairs), b.valued(one.name for _, one in pairs))
    layouts = Layouts((a.fn.graph, b.fn.graph), values, (a.feeds, b.feeds), inputs)
    found = [(name, one) for (name, _), one in zip(pairs, layouts.settled(pairs), strict=True)]
    ends = len(layers.matched), len(layers.matched) + len(layers.near)
    matched, near = dict(found[: ends[0]]), dict(found[ends[0] : ends[1]])
    return replace(layers, matched=matched, near=near), dict(found[ends[1] :])


@dataclass(frozen=True)
class ComparedModel:
    """One model on a few samples, and what is explained of them: a target of fixed weights."""

    fn: Differentiable
    feeds: Arrays
    target: Target

    @cached_property
    def view(self) -> LayerView:
        """Its layers."""
        return LayerView(self.fn.graph)

    @cached_property
    def values(self) -> Arrays:
        """The values of what layers compute, in all its forms."""
        names = dict.fromkeys(form for name in self.view.computed for form in self.view.forms(name))
        return self.fn.forward(self.feeds, list(names))

    def valued(self, names: Iterable[str]) -> Arrays:
        """The values of what layers compute, and of further tensors."""
        missing = [name for name in dict.fromkeys(names) if name not in self.values]
        return {**self.values, **(self.fn.forward(self.feeds, missing) if missing else {})}

    def shapes(self, size: int) -> list[tuple[int, ...]]:
        """The shapes in which layers hold so many elements."""
        return list(dict.fromkeys(value.shape for value in self.values.values() if value.size == size))

    def gradients(self, names: Sequence[str]) -> Arrays:
        """The gradients at these tensors."""
        return self.fn.gradients(self.feeds, self.target, names, defined=False).gradients

    def left(self, found: set[str], leaving: bool) -> list[str]:
        """What has no counterpart yet; of layers' outputs alone, or of everything."""
        view = self.view
        return [n for n in view.computed if n not in found and not (leaving and n in view.inner)]


@dataclass(frozen=True)
class _Equal:
    """A tensor of a, one of b of the same values, and the forms of both that are paired."""

    mine: str
    theirs: str
    form: str
    match: Match


def _equal_values(
    a: ComparedModel, b: ComparedModel, mine: Sequence[str], other: Sequence[str]
) -> Iterator[_Equal]:
    """Pairs of equal values. Several equal ones on both sides are paired in topological order; where their numbers
    differ, by their gradients.
    """
    prints = {name: fingerprint(b.values[name]) for name in other}
    groups: dict[tuple[str, ...], list[list[_Equal]]] = {}
    for name in mine:
        own, size = fingerprint(a.values[name]), a.values[name].size
        alike = [
            theirs
            for theirs, one in prints.items()
            if b.values[theirs].size == size and np.allclose(one, own, rtol=1e-3, atol=1e-6)
        ]
        same = [found for theirs in alike if (found := _aligned(a, b, name, theirs))]
        if same:
            groups.setdefault(tuple(one.theirs for one in same), []).append(same)
    for candidates, rows in groups.items():
        if len(candidates) == len(rows):
            yield from (row[index] for index, row in enumerate(rows))
        else:
            yield from _equal_gradients(a, b, rows)


def _aligned(a: ComparedModel, b: ComparedModel, name: str, theirs: str) -> _Equal | None:
    """The first forms of two tensors that are equal up to a permutation of axes, the batch first if it can be; else
    up to that of axes that they have merged, as other layers of their models have them apart.
    """
    for batch_first in (True, False):
        for form, other in product(a.view.forms(name), b.view.forms(theirs)):
            one = same_values(other, b.values[other], a.values[form], batch_first=batch_first)
            if one is not None:
                return _Equal(name, theirs, form, one)
    wanted, offered = a.values[name], b.values[theirs]
    one = regrouped_values(theirs, offered, wanted, b.shapes(offered.size), a.shapes(wanted.size))
    return None if one is None else _Equal(name, theirs, name, one)


def _equal_gradients(
    a: ComparedModel, b: ComparedModel, rows: Sequence[Sequence[_Equal]]
) -> Iterator[_Equal]:
    """Tell tensors of equal values apart by what the output makes of them."""
    mine = a.gradients(list(dict.fromkeys(one.form for row in rows for one in row)))
    other = b.gradients(list(dict.fromkeys(one.match.name for row in rows for one in row)))
    taken: set[str] = set()
    # From the end, where what is passed on stands.
    for row in reversed(rows):
        for one in reversed(row):
            gradient = one.match.to_onnx(other[one.match.name])
            if one.theirs not in taken and relative_distance(mine[one.form], gradient) <= TOLERANCE:
                taken.add(one.theirs)
                yield one
                break


def _nearest(a: ComparedModel, b: ComparedModel, mine: Sequence[str], theirs_left: Sequence[str]) -> Pairing:
    """Pair what is left by the least distance, the nearest first."""
    left = [name for name in mine if a.values[name].size > 1]
    right = [name for name in theirs_left if b.values[name].size > 1]
    by_size: dict[int, list[str]] = {}
    for name in right:
        by_size.setdefault(b.values[name].size, []).append(name)
    candidates = []
    for place, name in enumerate(left):
        for theirs in by_size.get(a.values[name].size, ()):
            near = closest(theirs, b.values[theirs], a.values[name])
            if near is not None and near[1] <= NEAR:
                candidates.append((near[1], place, name, near[0]))
    found: Pairing = {}
    used: set[str] = set()
    for _, _, name, one in sorted(candidates, key=lambda entry: entry[:2]):
        if name not in found and one.name not in used:
            found[name] = one
            used.add(one.name)
    return found
