"""FullGrad's terms of two sides, held against each other.

From a reader and inputs to every term as an array, its sums and the maps, with some terms left out where that is asked.
What is looked for here explains why published maps differ: each layer is rescaled by its own largest term, so that the
map shows what no other number does.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from analyzer.checks.metrics import relative_distance
from analyzer.checks.read.reading import Reader
from analyzer.methods.full_grad import read_full_grad
from analyzer.methods.full_gradient.decomposition import plan
from analyzer.types import Arrays


@dataclass(frozen=True)
class Decomposition:
    """The terms of one model by tensor; what each adds to every sample (N,), with its sign and in size; the maps by
    root; the layer of every term; the rounding floor of their sum (N,).
    """

    terms: Arrays
    totals: Arrays
    sizes: Arrays
    maps: Arrays
    layers: Mapping[str, str]
    floor: np.ndarray


def decompose(reader: Reader, feeds: Arrays, without: Collection[str] = ()) -> Decomposition:
    """FullGrad of a reader's model, its terms as arrays. without: the tensors whose terms are left out."""
    settings = replace(reader.settings, arrays=True, without=frozenset(without))
    bound = reader.bind(feeds)
    made = plan(bound, settings)
    found = bound.evaluate(made.request, defined=False)
    return Decomposition(
        {bias.tensor: found.arrays[f"term/{bias.tensor}"] for bias in made.biases},
        made.totals(found),
        made.totals(found, "magnitude"),
        made.maps(found),
        {bias.tensor: bias.layer for bias in made.biases},
        read_full_grad(made, found, {}).completeness.floor,
    )


def blurred(mine: Decomposition, theirs: Decomposition, counterparts: Arrays, tolerance: float) -> list[str]:
    """The terms that are apart by no more than the rounding of the sum that all terms make, in every sample.

    counterparts: {tensor of mine: the other side's term}, in the order of its axes. Rescaled to [0, 1], nothing but
    rounding is left of them.
    """
    floor = np.maximum(mine.floor, theirs.floor)
    found = []
    for name, other in counterparts.items():
        term = mine.terms[name]
        if relative_distance(term, other) > tolerance:
            difference = np.abs(term.astype(np.float64) - other)
            # What no axis of samples tells apart is held against the sample that allows least.
            by_sample = len(difference) == len(floor) and difference.ndim > 0
            moved = difference.reshape(len(floor), -1).sum(1) if by_sample else difference.sum()
            if (moved <= (floor if by_sample else floor.min())).all():
                found.append(name)
    return found
