"""Find what a graph computes from the number of its samples, such as x / len(x) or the position of a row.

From a Graph and outputs to the first node that reads a size as a number, where an output depends on it. Sizes that are
only shapes, as of a Reshape, change no number. Nothing is found where all sizes are constants.
"""

from __future__ import annotations

from collections.abc import Sequence

from analyzer.graph.graph import Graph, Node

_MADE = frozenset({"Shape", "Size"})
_SHAPES = {
    "AffineGrid": (1,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "EyeLike": (0,),
    "MaxUnpool": (2,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Shape": (0,),
    "Size": (0,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
}
"""The inputs that an op reads as sizes or places."""


def counting_node(graph: Graph, outputs: Sequence[str]) -> Node | None:
    """The first node that makes a number of a size, on which an output depends; None where there is none."""
    leading = graph.ancestors(outputs)
    sizes: set[str] = set()
    first: dict[str, Node] = {}
    for node in graph.nodes:
        if leading.isdisjoint(node.outputs):
            continue
        if node.op_type in _MADE and any(graph.tensors[o].constant is None for o in node.outputs):
            sizes.update(node.outputs)
            continue
        read = [u for i, u in enumerate(node.reads) if u and i not in _SHAPES.get(node.op_type, ())]
        made = next((first[u] for u in read if u in first), None)
        if made is None and sizes.intersection(read):
            if not any(graph.tensors[o].is_float for o in node.outputs if o) and node.op_type != "Range":
                sizes.update(node.outputs)
                continue
            made = node
        if made is not None:
            first.update((o, made) for o in node.outputs if o)
    return next((first[o] for o in outputs if o in first), None)
