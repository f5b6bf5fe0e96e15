"""Functions that are written in primitives become the one op that the standard has for them.

Rewrites a Draft whose types are inferred. Exporters write a LayerNormalization as ten nodes or as one, a GELU by erf
or by erfc, a Softplus with a threshold or without; a decomposition by nodes would differ with each. A region of nodes
between one tensor and another is therefore recognised by what it computes, not by how it is written: it is evaluated
in float64 and compared with what the op gives. What is read elsewhere, or matches no op, is left alone.
"""

from __future__ import annotations

import onnx

from converters.draft import Draft
from converters.joins.elementwise import Elementwise
from converters.joins.normalization import normalization
from converters.joins.region import Reader

__all__ = ["join_primitives"]


def join_primitives(draft: Draft) -> bool:
    """Rewrite every region that is found, the largest first. Returns whether any was."""
    reader, elementwise = Reader(draft), Elementwise(draft)
    replaced: dict[int, list[onnx.NodeProto]] = {}
    removed: list[onnx.NodeProto] = []
    # From the end: the last node of the largest region comes first.
    for node in reversed(draft.nodes):
        for region in reversed(reader.regions_before(node)):
            nodes = normalization(draft, region) if region.reduces else elementwise.join(region)
            if nodes is not None:
                replaced[id(node)] = nodes
                removed += region.nodes[:-1]
                reader.consume(region)
                break
    draft.replace(replaced)
    draft.remove(removed)
    return bool(replaced)
