"""Pair two models that should be one function: inputs and outputs with their layout, layers by value.

Names, layouts, the order of a bias and folding differ between frameworks; values do not. A layer of one model is that
of the other whose values are equal up to a permutation of axes, found by fingerprints that a permutation leaves alone
and verified on the values. What is left is paired by its place in the graph where the outputs differ (alignment.py),
and else with what it comes nearest to, so that a layer that went wrong is compared and not overlooked; what has no
counterpart is listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, permutations, product

import numpy as np

from analyzer.backends import Differentiable
from analyzer.backends.base import Arrays, batched_inputs
from analyzer.backends.matching import MOVES_ONLY, Match, closest, match
from analyzer.checks.alignment import pair_by_place
from analyzer.errors import AnalysisError, InputError, ShapeError
from analyzer.graph import Graph, Tensor

# Beyond this relative L2 two tensors are no two versions of one layer.
NEAR = 0.5
# Ways to feed the inputs that are tried where several fit.
MOST_LAYOUTS = 24

Pairing = dict[str, Match]


@dataclass(frozen=True)
class Layers:
    """matched: {tensor of a: its counterpart in b}, verified on values; near: paired by their place, or by the least
    distance. unmatched: the computed tensors of a, and of b, that have no counterpart, in graph order.
    """

    matched: Mapping[str, Match]
    near: Mapping[str, Match]
    unmatched: tuple[tuple[str, ...], tuple[str, ...]]

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
        raise InputError(f"there is no input {strange[0]!r} to pair")
    if len(feeds) != len(b.inputs):
        raise InputError(
            f"the models are fed {len(feeds)} and {len(b.inputs)} inputs: they are no one function"
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
                f"no order of the axes of {shapes} makes the input {name!r} {b.tensors[name].shape}"
            )
        choices.append(fitting)
    distinct = (
        dict(zip(b.inputs, chosen, strict=True))
        for chosen in product(*choices)
        if len({one.name for one in chosen}) == len(chosen)
    )
    yield from islice(distinct, MOST_LAYOUTS)


def _orders(graph: Graph, wanted: Tensor, array: np.ndarray) -> list[tuple[int, ...]]:
    """The orders of an array's axes that an input takes, its own first."""
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

    return [order for order in every if fits(order)]


def fed(pairing: Pairing, feeds: Arrays) -> Arrays:
    """The inputs of b."""
    return {name: np.ascontiguousarray(feeds[one.name].transpose(one.order)) for name, one in pairing.items()}


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


def pair_layers(
    a: Differentiable, b: Differentiable, inputs: Pairing, feeds: Arrays, theirs: Arrays, *, equal: bool
) -> Layers:
    """The counterparts of everything that a layer computes, by the values on these inputs.

    inputs: {input of b: of a}. equal: whether the models' outputs are.
    """
    computed = [_computed(fn.graph) for fn in (a, b)]
    mine, other = (
        fn.forward(given, names) for fn, given, names in zip((a, b), (feeds, theirs), computed, strict=True)
    )
    matched = match(mine, other, {}, frozenset(computed[0]), frozenset(computed[1]))
    placed: Pairing = {}
    if not equal:
        known = {**matched, **by_inputs_of_a(inputs)}
        placed = pair_by_place((a.graph, b.graph), (mine, other), known, (computed[0], computed[1]))
    near = {**placed, **_nearest(mine, other, {**matched, **placed})}
    taken = {one.name for one in (*matched.values(), *near.values())}
    return Layers(
        matched,
        near,
        (
            tuple(name for name in computed[0] if name not in matched and name not in near),
            tuple(name for name in computed[1] if name not in taken),
        ),
    )


def _computed(graph: Graph) -> list[str]:
    """The float tensors that depend on an input and that a node computes, not merely moves."""
    fed_by = graph.descendants(graph.inputs)
    return [
        name
        for node in graph.nodes
        if node.op_type not in MOVES_ONLY
        for name in node.outputs
        if name in fed_by and graph.tensors[name].is_float
    ]


def _nearest(mine: Arrays, other: Arrays, matched: Mapping[str, Match]) -> Pairing:
    """Pair what is left by the least distance, the nearest first."""
    taken = {one.name for one in matched.values()}
    left = [name for name in mine if name not in matched and mine[name].size > 1]
    right = [name for name in other if name not in taken and other[name].size > 1]
    by_size: dict[int, list[str]] = {}
    for name in right:
        by_size.setdefault(other[name].size, []).append(name)
    candidates = []
    for place, name in enumerate(left):
        for theirs in by_size.get(mine[name].size, ()):
            near = closest(theirs, other[theirs], mine[name])
            if near is not None and near[1] <= NEAR:
                candidates.append((near[1], place, name, near[0]))
    found: Pairing = {}
    used: set[str] = set()
    for _, _, name, one in sorted(candidates, key=lambda entry: entry[:2]):
        if name not in found and one.name not in used:
            found[name] = one
            used.add(one.name)
    return found


def counterparts(names: Sequence[str], layers: Mapping[str, Match]) -> list[str]:
    """The tensors of b that stand for these of a. Raises AnalysisError for one that has none."""
    lost = [name for name in names if name not in layers]
    if lost:
        raise AnalysisError(f"the other model has no tensor with the values of {lost[0]!r}")
    return [layers[name].name for name in names]
