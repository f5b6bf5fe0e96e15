"""Explain maps of two models that differ because a layer is written in other nodes, or refuse to.

FullGrad's published map takes the absolute value of every term, and has one term a node: where one model has a GRU and
the other its steps, the terms differ and their sum does not. Such an excess is excused only where three things are
shown: some terms have no equal counterpart (they are named); in every sample they add up to the same on both sides; and
without them the maps agree. Values and gradients, which have no such freedom, are never excused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from analyzer.backends.base import Arrays
from analyzer.checks.metrics import distance
from analyzer.checks.reading import Reader
from analyzer.checks.twin import Twin
from analyzer.methods.decomposition import plan


@dataclass(frozen=True)
class _Decomposition:
    """The terms of one model by tensor; what each adds to every sample (N,), with its sign and in size; the maps by
    root; the layer of every term.
    """

    terms: Arrays
    totals: Arrays
    sizes: Arrays
    maps: Arrays
    layers: Mapping[str, str]


def explain_map(a: Reader, b: Twin, feeds: Arrays, tolerance: float) -> str | None:
    """Why the maps of two models differ though all else agrees: the layers, or None where they do not explain it."""
    reader, theirs = b.as_reader(feeds)
    mine, other = _decompose(a, feeds), _decompose(reader, theirs)
    alone_in_a, alone_in_b = _alone(mine, other, b, tolerance)
    if not alone_in_a and not alone_in_b:
        return None
    sums = [
        np.sum([found.totals[name] for name in names], axis=0)
        for found, names in ((mine, alone_in_a), (other, alone_in_b))
    ]
    size = np.sum([mine.sizes[n] for n in alone_in_a] + [other.sizes[n] for n in alone_in_b], axis=0)
    apart = float((np.abs(sums[0] - sums[1]) / np.maximum(size, np.finfo(np.float64).tiny)).max())
    left = _decompose(a, feeds, alone_in_a).maps
    right = _decompose(reader, theirs, alone_in_b).maps
    maps = max(distance(left[root], b.map_of(root, right[b.tensors[root].name])).relative_l2 for root in left)
    if max(apart, maps) > tolerance:
        return None
    layers = list(
        dict.fromkeys(mine.layers[n] for n in alone_in_a)
        or dict.fromkeys(other.layers[n] for n in alone_in_b)
    )
    named = ", ".join(repr(layer) for layer in layers[:3]) + (
        f" and {len(layers) - 3} more" if layers[3:] else ""
    )
    return (
        f"{named}: written in other nodes in {b.name}; their terms add up to the same within {apart:.0e}, "
        f"and without them the maps agree to {maps:.0e}"
    )


def _decompose(reader: Reader, feeds: Arrays, without: Collection[str] = ()) -> _Decomposition:
    settings = replace(reader.settings, arrays=True, without=frozenset(without))
    made = plan(reader.fn, {name: array.shape for name, array in feeds.items()}, settings)
    found = reader.fn.evaluate(made.request, feeds, reader.target)
    return _Decomposition(
        {bias.tensor: found.arrays[f"term/{bias.tensor}"] for bias in made.biases},
        made.totals(found),
        made.totals(found, "magnitude"),
        made.maps(found),
        {bias.tensor: bias.layer for bias in made.biases},
    )


def _alone(
    mine: _Decomposition, other: _Decomposition, b: Twin, tolerance: float
) -> tuple[list[str], list[str]]:
    """The terms of a, and of b, that have no equal counterpart."""
    shared: dict[str, str] = {}
    for name, term in mine.terms.items():
        # An output may be moved to its place after the node that has the term.
        one = b.paired.get(name) or b.tensors.get(name)
        if one is None or one.name not in other.terms:
            continue
        if distance(term, one.to_onnx(other.terms[one.name])).relative_l2 <= tolerance:
            shared[name] = one.name
    taken = set(shared.values())
    return (
        [name for name, term in mine.terms.items() if name not in shared and term.any()],
        [name for name, term in other.terms.items() if name not in taken and term.any()],
    )
