"""Explain maps of two sides that differ though nothing is wrong, or refuse to.

FullGrad's published map takes the absolute value of every term, has one term a node, and rescales each by its own
largest: where one model has a GRU and the other its steps, the terms differ and their sum does not; where a term is
zero in exact arithmetic, the map shows its rounding errors as large as any layer. Such an excess is excused only where
three things are shown: some terms have no equal counterpart (they are named); in every sample they differ by the
rounding of the sum of all terms, or belong to other nodes and add up to the same on both sides; and without them the
maps agree. Values and gradients, which have no such freedom, are never excused.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from analyzer.checks.explain.terms import Decomposition, blurred, decompose
from analyzer.checks.metrics import relative_distance
from analyzer.checks.read.reading import Reader
from analyzer.checks.read.twin import Twin
from analyzer.graph.graph import Graph
from analyzer.types import Arrays


def explain_map(a: Reader, b: Reader | Twin, feeds: Arrays, tolerance: float) -> str | None:
    """Why the maps of two sides differ though all else agrees: the terms, or None where they do not explain it."""
    reader, theirs = b.as_reader(feeds)
    mine, other = decompose(a, feeds), decompose(reader, theirs)
    paired = _paired(mine, other, b)
    counterparts = {name: b.term_of(name, other.terms[one]) for name, one in paired.items()}
    rounded = blurred(mine, other, counterparts, tolerance)
    shared = {
        name: one
        for name, one in paired.items()
        if name in rounded or relative_distance(mine.terms[name], counterparts[name]) <= tolerance
    }
    alone_a = [name for name, term in mine.terms.items() if name not in shared and term.any()]
    alone_b = [name for name, term in other.terms.items() if name not in {*shared.values()} and term.any()]
    if not (rounded or alone_a or alone_b):
        return None
    # A layer that is one node on both sides has no freedom.
    if any(name in paired and _same_node(a.graph, name, b, reader.graph, paired[name]) for name in alone_a):
        return None
    sums = _sums_apart(mine, other, alone_a, alone_b)
    left = decompose(a, feeds, [*alone_a, *rounded]).maps
    right = b.maps_of(decompose(reader, theirs, [*alone_b, *(shared[name] for name in rounded)]).maps)
    maps = max(relative_distance(left[root], right[root]) for root in left)
    if max(sums, maps) > tolerance:
        return None
    reasons = []
    if rounded:
        reasons.append(f"{_named(mine, rounded)}: the map rescales a term that is zero but for rounding")
    if alone_a or alone_b:
        layers = _named(mine, alone_a) if alone_a else _named(other, alone_b)
        reasons.append(
            f"{layers}: written in other nodes in {b.name}; their terms add up to the same within {sums:.0e}"
        )
    return f"{'; '.join(reasons)}; without them the maps agree to {maps:.0e}"


def _paired(mine: Decomposition, other: Decomposition, b: Reader | Twin) -> dict[str, str]:
    """{tensor of a: of b} of the terms that stand for each other, if they are equal."""
    found = {name: b.counterpart(name) for name in mine.terms}
    return {name: one for name, one in found.items() if one is not None and one in other.terms}


def _same_node(graph: Graph, name: str, b: Reader | Twin, theirs: Graph, one: str) -> bool:
    """Whether two tensors are given by one op from inputs that stand for each other."""
    mine, other = graph.producer[name], theirs.producer[one]
    reads, reads_of_b = (
        [read for read in node.inputs if read and of.tensors[read].constant is None]
        for node, of in ((mine, graph), (other, theirs))
    )
    return mine.op_type == other.op_type and [b.counterpart(read) for read in reads] == reads_of_b


def _sums_apart(mine: Decomposition, other: Decomposition, of_a: Sequence[str], of_b: Sequence[str]) -> float:
    """How far apart what the terms of either side add up to is, beside their size, in the worst sample."""
    if not of_a and not of_b:
        return 0.0
    sums = [
        np.sum([found.totals[name] for name in names], axis=0)
        for found, names in ((mine, of_a), (other, of_b))
    ]
    size = np.sum([mine.sizes[name] for name in of_a] + [other.sizes[name] for name in of_b], axis=0)
    return float((np.abs(sums[0] - sums[1]) / np.maximum(size, np.finfo(np.float64).tiny)).max())


def _named(found: Decomposition, names: Collection[str]) -> str:
    """The layers of terms, the first few by name."""
    layers = list(dict.fromkeys(found.layers[name] for name in names))
    more = f" and {len(layers) - 3} more" if layers[3:] else ""
    return ", ".join(repr(layer) for layer in layers[:3]) + more
