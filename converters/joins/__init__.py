"""Functions that are written in primitives become the one op that the standard has for them.

Rewrites a Draft whose types are inferred. Exporters write a LayerNormalization as ten nodes or as one, and a GELU in
many orders of its factors; a decomposition by nodes would differ with each. A region of nodes between one tensor and
another becomes an op only if it has the op's formula, with every constant equal after rounding to the file's precision,
and the op's values in that precision. Any other region, or one whose inner values are read elsewhere, stays as it is.
"""

from __future__ import annotations

import onnx

from converters.budget import current
from converters.draft import Draft
from converters.joins.elementwise import Elementwise
from converters.joins.normalization import normalization
from converters.joins.region import Reader, Region

__all__ = ["join_primitives"]


def join_primitives(draft: Draft) -> bool:
    """Rewrite every region that is found, the largest first. Returns whether any was."""
    reader, elementwise, budget = Reader(draft), Elementwise(draft), current()
    replaced: dict[int, list[onnx.NodeProto]] = {}
    removed: list[onnx.NodeProto] = []
    # From the end: the last node of the largest region comes first.
    for node in reversed(draft.nodes):
        budget.check("recognising functions", node)
        for region in reversed(reader.regions_before(node)):
            if not region.reduces and _begins_with_the_end_of_another(reader, elementwise, region):
                continue
            nodes = normalization(draft, region) if region.reduces else elementwise.join(region)
            if nodes is not None:
                replaced[id(node)] = nodes
                removed += region.nodes[:-1]
                reader.consume(region)
                break
    draft.replace(replaced)
    draft.remove(removed)
    return bool(replaced)


def _begins_with_the_end_of_another(reader: Reader, elementwise: Elementwise, region: Region) -> bool:
    """Whether the first nodes of a region complete an activation before it, such as the division by 6 that ends a hard
    sigmoid, and the rest is an op's function without them: a scale and a shift before a hard sigmoid are taken for a
    part of it.
    """
    if not elementwise.recognises(region):
        return False
    entries = {part.entry for part in reader.regions_before(region.last) if elementwise.recognises(part)}
    inside = {id(node) for node in region.nodes}
    return any(
        elementwise.recognises(other)
        for node in region.nodes
        if node.output[0] in entries
        for other in reader.regions_before(node)
        if not inside.issuperset(id(one) for one in other.nodes)
    )
