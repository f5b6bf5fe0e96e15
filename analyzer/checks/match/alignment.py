"""Pair the layers of two models by their place in the graph, where values no longer tell.

From layers that were paired already, forwards: a node of one model stands for that of the other which reads the
counterparts of what it reads, in the same places or else in other ones, and does the same; where the caller allows it,
a node of another op stands for it if it is the only one there. So a layer that went wrong, however far, is compared
with its counterpart, and so is all behind it. Meant for models that are known to differ: of two that agree, one may
merely compute a thing in another order.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto

from analyzer.backends.source.matching import Match, closest
from analyzer.checks.match.layers import LayerView, moves
from analyzer.graph.graph import Graph, Node
from analyzer.types import Arrays


class OtherOps(Enum):
    """Which nodes of another op are counterparts: none, those of a layer in several nodes, or all."""

    NONE = auto()
    OF_LAYERS = auto()
    ALL = auto()


Sources = tuple[str, ...]


def pair_by_place(
    graphs: tuple[Graph, Graph],
    values: tuple[Arrays, Arrays],
    known: Mapping[str, Match],
    views: tuple[LayerView, LayerView],
    *,
    other_ops: OtherOps,
) -> dict[str, Match]:
    """{tensor of a: its counterpart in b} for those that layers compute and that are not `known`.

    values: of both on the same inputs; known: pairs that hold already, the inputs among them.
    """
    a, b = graphs
    found: dict[str, Match] = {}
    computed = (frozenset(views[0].computed), frozenset(views[1].computed))
    taken = {one.name for one in known.values()}
    offered: dict[Sources, list[Node]] = {}
    for node in b.nodes:
        if node.outputs[0] in computed[1] and node.outputs[0] not in taken:
            offered.setdefault(tuple(sorted(_sources(b, node))), []).append(node)
    for node in a.nodes:
        name = node.outputs[0]
        if name not in computed[0] or name in known or name in found:
            continue
        pairs = {**known, **found}
        sources = _sources(a, node)
        if not sources or any(source not in pairs for source in sources):
            continue
        read = tuple(pairs[source].name for source in sources)
        beside = offered.get(tuple(sorted(read)), [])
        same = [other for other in beside if other.op_type == node.op_type]
        alone = beside if other_ops is not OtherOps.NONE and len(beside) == 1 else []
        # What reads the same in another order is no other layer: it is one that went wrong, or that commutes.
        for other in sorted(same or alone, key=lambda other: _sources(b, other) != read):
            theirs, mine = other.outputs[0], name
            if other.op_type != node.op_type:
                # A layer is one node in one model, and several in the other: the pair is of what leaves it.
                theirs, mine = views[1].end(theirs), views[0].end(mine)
                if other_ops is OtherOps.OF_LAYERS and (theirs, mine) == (other.outputs[0], name):
                    continue
            if theirs in taken or mine in pairs:
                continue
            # The order of its axes is chosen once all pairs are known: layout.py.
            nearest = closest(theirs, values[1][theirs], values[0][mine])
            if nearest is not None:
                found[mine] = nearest[0]
                taken.add(theirs)
                beside.remove(other)
                break
    return found


def _sources(graph: Graph, node: Node) -> Sources:
    """What a node reads, seen through nodes that only move it; constants are left out."""
    found = []
    for name in node.inputs:
        while (moved := graph.producer.get(name)) is not None and moves(graph, moved):
            name = next(read for read in moved.inputs if graph.tensors[read].constant is None)
        if name and graph.tensors[name].constant is None and graph.tensors[name].is_float:
            found.append(name)
    return tuple(found)
