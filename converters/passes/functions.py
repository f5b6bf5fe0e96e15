"""Replace ops that are defined by other ops: the standard's own bodies, or the model's, stand in for them.

Rewrites a MutableGraph whose types are inferred. An op of the standard is expanded where it is listed in EXPANDED, or
newer than the canonical opset. A body is brought to the canonical opset by itself, whatever opset it was
written for. An op whose body depends on types that are not known (yet) stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx
from onnx import helper

from converters.budget import current
from converters.errors import InvalidModel
from converters.graph.insertion import adopt_constants, inherit_origin, instantiate
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import is_standard
from converters.graph.opset import all_nodes, expressible, set_opset

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


def expand_functions(graph: MutableGraph) -> bool:
    """Expand every node whose body is known. Returns whether there was any."""
    version = graph.opsets[""]
    replaced = {}
    for node in graph.nodes:
        if not is_standard(node) or (node.op_type not in EXPANDED and expressible(node, version)):
            continue
        body = _body(graph, node, version)
        if body is not None:
            replaced[id(node)] = _expansion(graph, node, body)
    graph.replace(replaced)
    return bool(replaced)


def inline_calls(graph: MutableGraph, functions: Sequence[onnx.FunctionProto]) -> None:
    """Replace the calls of a model's own functions, in a graph of the canonical opset.

    Raises InvalidModel where a call remains: in a subgraph, or of a function that calls itself.
    """
    known = {(function.domain, function.name): function for function in functions}
    for _ in known:
        calls = [(node, known[key]) for node in graph.nodes if (key := (node.domain, node.op_type)) in known]
        if not calls:
            break
        graph.infer_types()
        graph.replace({id(node): _expansion(graph, node, function) for node, function in calls})
    for domain in {domain for domain, _ in known}:
        graph.opsets.pop(domain, None)
    left = {node.op_type for node in all_nodes(graph.nodes) if (node.domain, node.op_type) in known}
    if left:
        raise InvalidModel(
            f"the model's functions cannot be inlined: {', '.join(sorted(left))}. Fix: export the model without "
            "functions, or write them out with onnx.inliner.inline_local_functions"
        )


def _body(graph: MutableGraph, node: onnx.NodeProto, version: int) -> onnx.FunctionProto | None:
    """The standard's body of a node, with its opset; None where there is none for what is known."""
    schema: Any = onnx.defs.get_schema(node.op_type, version)
    if schema.has_function:
        written_for = _nearest(schema.function_opset_versions, version)
        body: onnx.FunctionProto = onnx.FunctionProto.FromString(
            schema.get_function_with_opset_version(written_for)
        )
        return body
    if not schema.has_context_dependent_function:
        return None
    types = [graph.typed(name) if name else onnx.TypeProto() for name in node.input]
    known = [entry for entry in types if entry is not None]
    if len(known) < len(types):
        return None
    serialized = schema.get_context_dependent_function_with_opset_version(
        _nearest(schema.context_dependent_function_opset_versions, version),
        node.SerializeToString(),
        [entry.SerializeToString() for entry in known],
    )
    body = onnx.FunctionProto.FromString(serialized)
    return body if body.node else None


def _nearest(versions: list[int], version: int) -> int:
    """The newest of the opsets that bodies are written for, up to the graph's own where there is one."""
    return max((known for known in versions if known <= version), default=min(versions))


def _expansion(graph: MutableGraph, node: onnx.NodeProto, body: onnx.FunctionProto) -> list[onnx.NodeProto]:
    """A node's body in the canonical opset, in terms of the node's own inputs and outputs."""
    fragment = _fragment(graph, node, body)
    if is_standard(node):
        fragment.infer_types()
        expand_functions(fragment)
    set_opset(fragment)
    stem = next(name for name in node.output if name)
    given = dict(zip(body.input, [*node.input, *[""] * len(body.input)], strict=False))
    given |= adopt_constants(graph, fragment, stem)
    outputs = zip(body.output, node.output, strict=False)
    current().check("writing out a function", node)
    current().take_nodes(len(fragment.nodes), "writing out a function", node)
    nodes, _ = instantiate(graph, fragment.nodes, given, stem, outputs)
    inherit_origin(nodes, node)
    return nodes


def _fragment(graph: MutableGraph, node: onnx.NodeProto, body: onnx.FunctionProto) -> MutableGraph:
    """A body as a graph of its own, the attributes of the call filled in."""
    stated = {entry.name: entry for entry in body.attribute_proto}
    if is_standard(node):
        formal = onnx.defs.get_schema(node.op_type, graph.opsets[""]).attributes
        stated |= {name: entry.default_value for name, entry in formal.items() if entry.default_value.name}
    stated |= {entry.name: entry for entry in node.attribute}
    proto = onnx.ModelProto(ir_version=11, opset_import=body.opset_import)
    proto.graph.node.extend(body.node)
    _fill_in(proto.graph, stated)
    for name, actual in zip(body.input, node.input, strict=False):
        if actual:
            proto.graph.input.add(name=name, type=graph.typed(actual))
    for name, actual in zip(body.output, node.output, strict=False):
        if actual:
            proto.graph.output.add(name=name, type=graph.type_of(actual))
    return MutableGraph(proto)


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
