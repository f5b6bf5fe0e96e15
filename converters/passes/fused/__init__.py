"""Expand the fused ops that ONNX Runtime's optimizer and common exporters write into ops of the standard.

Rewrites a MutableGraph at the canonical opset: one function per op, a file per family, from a node's inputs and
attributes to standard nodes that compute the same. Refuses, by name, ops of ONNX Runtime that have no
expansion, and the layouts of one machine (domains com.microsoft.nchwc and com.ms.internal.nhwc).
"""

from __future__ import annotations

import contextlib

import onnx

from converters.errors import UnsupportedModel
from converters.graph.expansion import EXPANSIONS, MICROSOFT, Expansion, Undetermined, describe, expand
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import is_standard
from converters.passes.fused import activations, attention, classical, decoder, layers, norms, quantized

LAYOUTS = ("com.microsoft.nchwc", "com.ms.internal.nhwc")

# ONNX Runtime writes these under the standard's own domain, at versions where the standard has no such op.
_BORROWED = ("LayerNormalization", "SimplifiedLayerNormalization")

__all__ = [
    "EXPANSIONS",
    "activations",
    "attention",
    "classical",
    "decoder",
    "expand_fused",
    "layers",
    "name_domains",
    "norms",
    "quantized",
    "refuse_foreign",
    "refuse_undetermined",
]


def name_domains(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with ONNX Runtime's ops under its own domain, imported; itself where nothing is amiss.

    Its optimizers write some under the standard's domain, and may leave the import out; the runtime minds neither.
    """
    version = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), None)
    borrowed = [i for i, node in enumerate(proto.graph.node) if version and _is_borrowed(node, version)]
    imported = any(entry.domain == MICROSOFT for entry in proto.opset_import)
    needed = borrowed or any(node.domain == MICROSOFT for node in proto.graph.node)
    if not borrowed and (imported or not needed):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for index in borrowed:
        copy.graph.node[index].domain = MICROSOFT
    if not imported:
        copy.opset_import.add(domain=MICROSOFT, version=1)
    return copy


def _is_borrowed(node: onnx.NodeProto, version: int) -> bool:
    if not is_standard(node, *_BORROWED):
        return False
    try:
        onnx.defs.get_schema(node.op_type, version)
    except onnx.defs.SchemaError:
        return True
    return False


def refuse_foreign(draft: MutableGraph) -> None:
    """Raise UnsupportedModel where ops of ONNX Runtime have no expansion; all of them are named."""
    laid_out = [node for node in draft.nodes if node.domain in LAYOUTS]
    if laid_out:
        raise UnsupportedModel(
            f"{describe(laid_out[0])} is written for the memory layout of one machine. Fix: let ONNX Runtime "
            'optimize the model at level "extended" at most, or give the model as it was before'
        )
    foreign = sorted(
        {n.op_type for n in draft.nodes if n.domain == MICROSOFT and (n.domain, n.op_type) not in EXPANSIONS}
    )
    if foreign:
        raise UnsupportedModel(
            f"ONNX Runtime's own {', '.join(f'{MICROSOFT}.{name}' for name in foreign)} cannot be expressed in "
            "standard ops here. Fix: give the model as it was before it was optimized for ONNX Runtime"
        )


def expand_fused(draft: MutableGraph) -> bool:
    """Replace every fused node whose types can be inferred. Returns whether any was replaced."""
    changed = False
    while any(_expansion(node) for node in draft.nodes) and _expand_known(draft):
        changed = True
        draft.infer_types()
    if changed and not any(node.domain == MICROSOFT for node in draft.nodes):
        draft.opsets.pop(MICROSOFT, None)
    return changed


def _expansion(node: onnx.NodeProto) -> Expansion | None:
    return EXPANSIONS.get((node.domain, node.op_type))


def _expand_known(draft: MutableGraph) -> bool:
    """Replace the fused nodes whose types are known well enough. Returns whether any was."""
    replaced = {}
    for node in draft.nodes:
        expansion = _expansion(node)
        if expansion is not None:
            with contextlib.suppress(Undetermined):
                replaced[id(node)] = expand(draft, node, expansion)
    draft.replace(replaced)
    return bool(replaced)


def refuse_undetermined(draft: MutableGraph) -> None:
    """Raise UnsupportedModel for a fused node that could not be expanded for want of a rank or type."""
    for node in draft.nodes:
        expansion = _expansion(node)
        if expansion is None:
            continue
        try:
            expand(draft, node, expansion)
        except Undetermined as error:
            raise UnsupportedModel(
                f"{describe(node)} cannot be expanded: {error}. Fix: run onnx.shape_inference on the file, or state "
                "the shapes of its inputs"
            ) from error
