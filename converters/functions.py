"""Replace ops that the ONNX standard defines by other ops: the standard's own bodies stand in for them.

Rewrites a Draft whose types are inferred. An op is expanded where it is listed in EXPANDED, or newer than the
canonical opset. A body is brought to the canonical opset by itself, whatever opset it was written for. An op
whose body depends on types that are not known (yet) stays.
"""

from __future__ import annotations

from typing import Any

import onnx
from onnx import helper

from converters.draft import Draft, is_standard
from converters.opset import expressible, set_opset
from converters.splice import adopt_constants, inherit_origin, instantiate

EXPANDED = frozenset(
    {
        "Attention",
        "CausalConvWithState",
        "CenterCropPad",
        "LinearAttention",
        "MeanVarianceNormalization",
        "NegativeLogLikelihoodLoss",
        "RotaryEmbedding",
        "SequenceMap",
        "SoftmaxCrossEntropyLoss",
        "SwiGLU",
        "Swish",
    }
)
"""Ops with a body in the standard that are always expanded: nobody knows them better as a whole."""


def expand_functions(draft: Draft) -> bool:
    """Expand every node whose body is known. Returns whether there was any."""
    version = draft.opsets[""]
    replaced = {}
    for node in draft.nodes:
        if not is_standard(node) or (node.op_type not in EXPANDED and expressible(node, version)):
            continue
        body = _body(draft, node, version)
        if body is not None:
            replaced[id(node)] = _expansion(draft, node, body)
    draft.replace(replaced)
    return bool(replaced)


def _body(draft: Draft, node: onnx.NodeProto, version: int) -> onnx.FunctionProto | None:
    """The standard's body of a node, with its opset; None where there is none for what is known."""
    schema: Any = onnx.defs.get_schema(node.op_type, version)
    if schema.has_function:
        written_for = _nearest(schema.function_opset_versions, version)
        return onnx.FunctionProto.FromString(schema.get_function_with_opset_version(written_for))
    if not schema.has_context_dependent_function:
        return None
    types = [draft.typed(name) if name else onnx.TypeProto() for name in node.input]
    known = [entry for entry in types if entry is not None]
    if len(known) < len(types):
        return None
    stated = onnx.NodeProto()
    stated.CopyFrom(node)
    _state_defaults(stated, schema)
    serialized = schema.get_context_dependent_function_with_opset_version(
        _nearest(schema.context_dependent_function_opset_versions, version),
        stated.SerializeToString(),
        [entry.SerializeToString() for entry in known],
    )
    body = onnx.FunctionProto.FromString(serialized)
    return body if body.node else None


def _nearest(versions: list[int], version: int) -> int:
    """The newest of the opsets that bodies are written for, up to the graph's own where there is one."""
    return max((known for known in versions if known <= version), default=min(versions))


def _state_defaults(node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> None:
    given = {entry.name for entry in node.attribute}
    for name, formal in schema.attributes.items():
        if name not in given and formal.default_value.name:
            node.attribute.append(formal.default_value)


def _expansion(draft: Draft, node: onnx.NodeProto, body: onnx.FunctionProto) -> list[onnx.NodeProto]:
    """A node's body in the canonical opset, in terms of the node's own inputs and outputs."""
    fragment = _fragment(draft, node, body)
    fragment.infer_types()
    expand_functions(fragment)
    set_opset(fragment)
    stem = next(name for name in node.output if name)
    given = dict(zip(body.input, [*node.input, *[""] * len(body.input)], strict=False))
    given |= adopt_constants(draft, fragment, stem)
    outputs = zip(body.output, node.output, strict=False)
    nodes, _ = instantiate(draft, fragment.nodes, given, stem, outputs)
    inherit_origin(nodes, node)
    return nodes


def _fragment(draft: Draft, node: onnx.NodeProto, body: onnx.FunctionProto) -> Draft:
    """A body as a graph of its own, the attributes of the call filled in."""
    stated = onnx.NodeProto()
    stated.CopyFrom(node)
    _state_defaults(stated, onnx.defs.get_schema(node.op_type, draft.opsets[""]))
    proto = onnx.ModelProto(ir_version=11, opset_import=body.opset_import)
    proto.graph.node.extend(body.node)
    _fill_in(proto.graph, {entry.name: entry for entry in stated.attribute})
    for formal, actual in zip(body.input, node.input, strict=False):
        if actual:
            proto.graph.input.add(name=formal, type=draft.typed(actual))
    for formal, actual in zip(body.output, node.output, strict=False):
        if actual:
            proto.graph.output.add(name=formal, type=draft.type_of(actual))
    return Draft(proto)


def _fill_in(graph: onnx.GraphProto, given: dict[str, onnx.AttributeProto]) -> None:
    """Replace references to the call's attributes by their values; what the call does not state goes."""
    for node in graph.node:
        kept = []
        for entry in node.attribute:
            if not entry.ref_attr_name:
                kept.append(entry)
            elif entry.ref_attr_name in given:
                value = helper.get_attribute_value(given[entry.ref_attr_name])
                kept.append(helper.make_attribute(entry.name, value, attr_type=entry.type))
        kept = [onnx.AttributeProto.FromString(entry.SerializeToString()) for entry in kept]
        del node.attribute[:]
        node.attribute.extend(kept)
        for entry in node.attribute:
            if entry.HasField("g"):
                _fill_in(entry.g, given)
