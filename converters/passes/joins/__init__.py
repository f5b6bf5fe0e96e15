"""Functions that are written in primitives become the one op that the standard has for them.

Rewrites a MutableGraph whose types are inferred. Exporters write a LayerNormalization as ten nodes or as one, and a
GELU in many orders of its factors; a decomposition by nodes would differ with each. A region of nodes between one
tensor and another becomes an op only if it has the op's formula, with every constant equal after rounding to the file's
precision, and the op's values in that precision. Any other region, or one whose inner values are read elsewhere, stays
as it is.
"""

from __future__ import annotations

import onnx

from converters.budget import current
from converters.graph.mutable import MutableGraph
from converters.passes.joins.elementwise import RegionRecogniser
from converters.passes.joins.normalization import normalization
from converters.passes.joins.region import Region, TensorUses

__all__ = ["join_primitives"]


def join_primitives(graph: MutableGraph) -> bool:
    """Rewrite every region that is found, the largest first. Returns whether any was."""
    reader, elementwise, budget = TensorUses(graph), RegionRecogniser(graph), current()
    activations = _Activations(reader, elementwise)
    replaced: dict[int, list[onnx.NodeProto]] = {}
    removed: list[onnx.NodeProto] = []
    # From the end: the last node of the largest region comes first.
    for node in reversed(graph.nodes):
        budget.check("recognising functions", node)
        for region in reversed(reader.regions_before(node)):
            if not region.reduces and activations.begins_with_the_end_of_another(region):
                continue
            nodes = normalization(graph, region) if region.reduces else elementwise.join(region)
            if nodes is not None:
                replaced[id(node)] = nodes
                removed += region.nodes[:-1]
                reader.consume(region)
                activations.forget()
                break
    graph.replace(replaced)
    graph.remove(removed)
    return bool(replaced)


class _Activations:
    """The regions before each node that compute an op's function, worked out once until a region is consumed."""

    def __init__(self, reader: TensorUses, elementwise: RegionRecogniser) -> None:
        self._reader, self._elementwise = reader, elementwise
        self._known: dict[int, list[Region]] = {}

    def forget(self) -> None:
        """Forget what is known: a region was consumed."""
        self._known.clear()

    def begins_with_the_end_of_another(self, region: Region) -> bool:
        """Whether the first nodes of a region complete an activation before it, such as the division by 6 that ends a
        hard sigmoid, and the rest is an op's function without them: a scale and a shift before a hard sigmoid are taken
        for a part of it.
        """
        if not self._elementwise.recognises(region):
            return False
        entries = {part.entry for part in self._before(region.last)}
        inside = {id(node) for node in region.nodes}
        # The regions before a node lie within one another: the last one is the largest.
        return any(
            not inside.issuperset(map(id, other.nodes))
            for node in region.nodes
            if node.output[0] in entries
            for other in self._before(node)[-1:]
        )

    def _before(self, last: onnx.NodeProto) -> list[Region]:
        if id(last) not in self._known:
            regions = self._reader.regions_before(last)
            self._known[id(last)] = [region for region in regions if self._elementwise.recognises(region)]
        return self._known[id(last)]
