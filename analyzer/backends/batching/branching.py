"""Samples of a model that branches on their values: one condition chooses the branch of a whole call.

From a Differentiable and feeds to an Arrangement. Other points of a path, and other samples, may take other branches:
samples are run one at a time if that gives the outputs of the whole call. Otherwise, the call counts as one sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyzer.backends.batching.proof import Proof
from analyzer.backends.batching.trial import near
from analyzer.errors import BackendError
from analyzer.graph.graph import Graph, Node
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.graph.samples.guesses import Guess
from analyzer.graph.samples.labels import FREE

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Arrays

_CHOOSING = ("If", "Loop")
_SIZES = ("Shape", "Size")


def choosing_node(
    graph: Graph, proofs: Iterable[tuple[Guess, Proof | None]], outputs: Sequence[str]
) -> Node | None:
    """The first branch or loop that the values of samples decide; None where there is none."""
    found = [proof.followed.labels for _, proof in proofs if proof is not None]
    leading = graph.ancestors(outputs)
    nodes = [node for node in graph.nodes if node.op_type in _CHOOSING and not node.domain]
    nodes = [node for node in nodes if not leading.isdisjoint(node.outputs)]
    if not nodes:
        return None
    computed = graph.descendants(graph.inputs, lambda node, index: node.op_type not in _SIZES)

    def is_decided(node: Node, name: str) -> bool:
        if name not in computed:
            return False
        return not found or any((labels[name] != FREE).any() for labels in found if name in labels)

    # Of a branch that has others within, all that it reads may decide them.
    return next((node for node in nodes if any(is_decided(node, name) for name in _deciding(node))), None)


def _deciding(node: Node) -> Sequence[str]:
    nested = node.op_type == "Loop" or any(
        inner.op_type in _CHOOSING
        for body in (node.attributes.get("then_branch"), node.attributes.get("else_branch"))
        if body is not None
        for inner in body.node
    )
    return [name for name in (node.reads if nested else node.inputs[:1]) if name]


def one_by_one(
    fn: Differentiable, feeds: Arrays, plain: Guess, outputs: Sequence[str], node: Node
) -> Arrangement | None:
    """Return the arrangement that runs samples one at a time; None if a sample alone has other outputs."""
    if plain.keys() != feeds.keys() or any(plain.values()):
        return None
    count = len(feeds[next(iter(plain))])
    try:
        whole = fn.engine.forward(feeds, outputs)
        rows = [
            fn.engine.forward({name: array[row : row + 1] for name, array in feeds.items()}, outputs)
            for row in range(count)
        ]
    except BackendError:
        return None
    for name in outputs:
        if any(row[name].shape[:1] != (1,) for row in rows):
            return None
        if not near(whole[name], np.concatenate([row[name] for row in rows])):
            return None
    return Arrangement(
        alone=True, note=f"{node} depends on the values of a sample: samples are explained one at a time"
    )
