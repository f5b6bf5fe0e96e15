"""Follow the image's axes through a graph: from the image's cells to those of every tensor that has some.

Reads a Graph whose shapes are all known, for one sample, and whose shape arithmetic is constant. Returns the cells by
tensor name. An op that nothing is known of, or that mixes what lies apart, gives none: what cannot be placed is not
guessed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from analyzer.graph.graph import Graph, Node
from analyzer.ops import find
from analyzer.ops.registry import Kind
from analyzer.placement.cells import Cells, cells_of, regular, whole
from analyzer.placement.mixing import MIXING, same_place
from analyzer.placement.moves import MOVES, reshape
from analyzer.placement.step import PlacedNode, UnknownSize, sizes_of

# Same shape in and out, each element from its own place (some ops look at its channels or neighbours, too).
_IN_PLACE = frozenset(
    [
        *("Abs", "BatchNormalization", "Cast", "CastLike", "CumSum", "Dropout", "GroupNormalization"),
        *("Identity", "InstanceNormalization", "LRN", "LeakyRelu", "LogSoftmax", "LpNormalization", "Neg"),
        *("Ceil", "Floor", "Reciprocal", "Relu", "Round", "Sqrt", "Trilu"),
    ]
)
# Ops that take a place from any of their inputs; the others from the first alone.
_FROM_ANY = frozenset(["Concat", "MatMul", "Gemm", "Einsum"])


def find_cells(graph: Graph, image: str, spatial: tuple[int, ...]) -> dict[str, Cells]:
    """The cells of every tensor that has some. `spatial` are the image's spatial axes, in order."""
    shape = sizes_of(graph, image)
    pixels = whole(tuple(shape[axis] for axis in spatial))
    found = {image: regular(pixels, len(shape), spatial)}
    for node in graph.nodes:
        parts = tuple(found.get(name) for name in node.inputs)
        if any(part is not None for part in parts):
            found.update(_through(PlacedNode(graph, node, parts)))
    for node in reversed(graph.nodes):
        if node.outputs[0] in found:
            found.update(_back(graph, node, found))
    return found


def _back(graph: Graph, node: Node, found: Mapping[str, Cells]) -> dict[str, Cells]:
    """The cells of inputs that have none of their own: what is added to a tensor stands where that tensor stands.

    So the output of a layer that mixes all tokens has a place where it is added to the tokens.
    """
    cells = found[node.outputs[0]]
    missing = [name for name in node.inputs if name and name not in found]
    try:
        shape = sizes_of(graph, node.outputs[0])
        same = [name for name in missing if sizes_of(graph, name) == shape]
        if node.op_type in ("Add", "Sub", "Sum") or (_in_place(node) and missing == list(node.inputs)[:1]):
            return dict.fromkeys(same, cells)
        data = node.inputs[0] if node.inputs else ""
        if data not in missing:
            return {}
        if node.op_type == "Transpose":
            order = node.attributes["perm"] or list(reversed(range(len(shape))))
            return {data: Cells(cells.grids, cells.index.transpose(np.argsort(order)))}
        if MOVES.get(node.op_type) is reshape:
            back = cells_of(cells.grids, cells.over(shape).reshape(sizes_of(graph, data)))
            return {} if back is None else {data: back}
    except UnknownSize:
        pass
    return {}


def _through(step: PlacedNode) -> dict[str, Cells]:
    """The cells of a node's outputs."""
    node = step.node
    rule = MOVES.get(node.op_type) or MIXING.get(node.op_type) or (same_place if _in_place(node) else None)
    if rule is None or (step.data is None and rule is not same_place and node.op_type not in _FROM_ANY):
        return {}
    if any(0 in (step.graph.tensors[name].shape or ()) for name in (*node.inputs[:1], *node.outputs) if name):
        # A tensor without elements has no cells.
        return {}
    try:
        outcome = rule(step)
    except (UnknownSize, IndexError, ValueError):
        # A model whose sizes or positions contradict one another fails when it runs.
        return {}
    outputs = [outcome] if isinstance(outcome, Cells) or outcome is None else outcome
    return {
        name: cells for name, cells in zip(node.outputs, outputs, strict=False) if name and cells is not None
    }


def _in_place(node: Node) -> bool:
    rules = find(node)
    if rules is None:
        return False
    return rules.broadcasts or rules.kind in (Kind.ELEMENTWISE, Kind.SYMMETRIC) or node.op_type in _IN_PLACE
