"""The last tensor of a network that still lies over an input: where a class activation map is taken by default.

From a Bound to one tensor for every input that has one. It is the last one, in network
order, through which all that the target reads of the input passes, and whose elements have places in the input: the
features before the pooling of a classifier, not one branch of a block. An input without one is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from analyzer.backends import Differentiable
from analyzer.backends.bound import Bound
from analyzer.backends.caches import Cache
from analyzer.backends.differentiable import attributed
from analyzer.graph.graph import Graph
from analyzer.placement import Cells
from analyzer.placement.cells import NOWHERE
from analyzer.placement.fixed_sizes import at_input_sizes
from analyzer.placement.terms import RootCells, read_roots

# They move elements and compute nothing: the tensor before them is the layer's own.
_MOVES = frozenset({"Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_TRIED_AT_ONCE = 8
_READINGS: Cache[Mapping[str, RootCells]] = Cache("readings")


def last_layers(bound: Bound, roots: Sequence[str]) -> dict[str, str]:
    """{root: its last tensor with places, on which an explained output depends}."""
    found, fn, seed = {}, bound.fn, bound.seed
    for root, (_, cells) in readings(bound, roots).items():
        path = _path(fn, seed.outputs, root)
        # Of a table, or of a signal given as one, only what has channels beside its places.
        least_rank = 3 if fn.graph.tensors[root].rank <= 2 else 2
        known = [
            name
            for name in fn.tensors
            if name in path
            and name in cells
            and name not in seed.outputs
            # The input itself, in another layout, is no layer.
            and _computed(fn.graph, name, cells) not in roots
            and name in fn.places
            and fn.graph.tensors[name].rank >= least_rank
        ]
        narrow = _bottlenecks(fn.graph, path, root, seed.outputs)
        candidates = [name for name in known if name in narrow] or known
        chosen = _reached(bound, candidates, cells)
        if chosen is not None:
            found[root] = _computed(fn.graph, chosen, cells)
    return found


def readings(bound: Bound, roots: Sequence[str]) -> Mapping[str, RootCells]:
    """The spatial axes of every root and the cells of all tensors on the way from it. Kept by the model."""
    fn, feeds, outputs = bound.fn, bound.feeds, bound.seed.outputs

    def made() -> Mapping[str, RootCells]:
        fixed = at_input_sizes(fn, feeds, (*outputs, *roots))
        path = attributed(fn.graph, outputs, roots)
        tensors = [name for name in fn.tensors if name in path]
        return read_roots(fn.graph, fixed, roots, tensors, {})

    sizes = tuple((name, array.shape[1:]) for name, array in feeds.items())
    return _READINGS.get(fn, (outputs, tuple(roots), sizes), made)


def _path(fn: Differentiable, outputs: tuple[str, ...], root: str) -> frozenset[str]:
    return frozenset(
        name for name in attributed(fn.graph, outputs, [root]) if fn.graph.tensors[name].is_float
    )


def _bottlenecks(graph: Graph, path: Collection[str], root: str, outputs: Collection[str]) -> set[str]:
    """The tensors through which every way from the root to the outputs leads: no other is read across their node."""

    def last_use(name: str) -> int:
        # The target reads what it is made of, when all is computed.
        if name in outputs:
            return len(graph.nodes)
        readers = graph.consumers.get(name, ())
        uses = [graph.positions[node.name] for node in readers if any(o in path for o in node.outputs)]
        return max(uses, default=-1)

    found, read_until = set(), last_use(root)
    for node in graph.nodes:
        made = [name for name in node.outputs if name in path]
        for name in made:
            others = max([read_until, *(last_use(other) for other in made if other != name)])
            if others <= graph.positions[node.name]:
                found.add(name)
        read_until = max([read_until, *map(last_use, made)])
    return found


def _reached(bound: Bound, names: Sequence[str], cells: Mapping[str, Cells]) -> str | None:
    """The last of the tensors whose elements with places carry a gradient.

    Behind the last attention of a transformer the class token alone is read. Where all elements have places, the
    graph says that they are.
    """
    for end in range(len(names), 0, -_TRIED_AT_ONCE):
        block = names[max(end - _TRIED_AT_ONCE, 0) : end]
        if not (cells[block[-1]].index == NOWHERE).any():
            return block[-1]
        gradients = bound.gradients(block).gradients
        for name in reversed(block):
            placed = cells[name].index != NOWHERE
            if placed.all() or np.any(gradients[name] * placed):
                return name
    return None


def _computed(graph: Graph, name: str, cells: Collection[str]) -> str:
    """The tensor as the layer computed it, before it was reshaped or transposed."""
    while name in graph.producer and _moves(graph, name) and graph.producer[name].inputs[0] in cells:
        name = graph.producer[name].inputs[0]
    return name


def _moves(graph: Graph, name: str) -> bool:
    node = graph.producer[name]
    # A slice of everything is how some exporters write x[:].
    whole = node.op_type == "Slice" and graph.tensors[node.inputs[0]].shape == graph.tensors[name].shape
    return node.op_type in _MOVES or whole
