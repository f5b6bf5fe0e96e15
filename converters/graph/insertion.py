"""Put the nodes of a body (a function's, a branch's, one iteration of a loop) into the graph around it.

Reads a MutableGraph, nodes, and what each outer name stands for; returns copies of the nodes under names that the
graph does not have yet. The body itself is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import helper

from converters.graph.mutable import MutableGraph
from converters.graph.nodes import is_standard, rename_in, subgraphs
from converters.graph.tensors import constant_of, value_of


def instantiate(
    graph: MutableGraph,
    nodes: Iterable[onnx.NodeProto],
    given: Mapping[str, str],
    stem: str,
    outputs: Iterable[tuple[str, str]] = (),
) -> tuple[list[onnx.NodeProto], dict[str, str]]:
    """Copy a body's nodes into a graph. Returns the copies, and the graph's name of each of the body's tensors.

    given: the graph's name of each of the body's inputs; "" for one that is omitted.
    stem: what the names of the body's other tensors begin with.
    outputs: pairs of a body's output and the name that it must have in the graph; "" for any.
    """
    nodes = list(nodes)
    written = {name for node in nodes for name in node.output if name}
    names = dict(given)
    handed_on = []
    for inner, outer in outputs:
        if outer and inner in written and inner not in names:
            names[inner] = outer
        elif outer:
            handed_on.append((inner, outer))
    names |= {inner: graph.fresh(f"{stem}/{inner}") for inner in sorted(written - names.keys())}
    copies = [_copied(node) for node in nodes]
    for node in copies:
        rename_in(node, names)
    copies += [helper.make_node("Identity", [names.get(inner, inner)], [outer]) for inner, outer in handed_on]
    return copies, names


def adopt_constants(graph: MutableGraph, body: MutableGraph, stem: str) -> dict[str, str]:
    """Enter a body's constants into a graph, under fresh names. Returns the graph's name of each."""
    names = {name: graph.fresh(f"{stem}/{name}") for name in body.constants}
    graph.constants |= {names[name]: array for name, array in body.constants.items()}
    return names


def hoist_constants(graph: MutableGraph, body: onnx.GraphProto, stem: str) -> None:
    """Move the constants of a body, and of those within it, to the graph: all copies of the body share them."""
    results = {info.name for info in body.output}
    found = {t.name: constant_of(t) for t in body.initializer if t.name not in results}
    for node in body.node:
        if is_standard(node, "Constant") and node.output[0] not in results:
            value = value_of(node)
            if value is not None:
                found[node.output[0]] = value
    kept = [tensor for tensor in body.initializer if tensor.name not in found]
    nodes = [node for node in body.node if found.keys().isdisjoint(node.output)]
    names = {name: graph.fresh(f"{stem}/{name}") for name in found}
    graph.constants |= {names[name]: array for name, array in found.items()}
    for node in nodes:
        rename_in(node, names)
        for nested in subgraphs(node):
            hoist_constants(graph, nested, stem)
    copies = [_copied(node) for node in nodes]
    tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in kept]
    del body.node[:], body.initializer[:]
    body.node.extend(copies)
    body.initializer.extend(tensors)


def inherit_origin(nodes: Iterable[onnx.NodeProto], caller: onnx.NodeProto) -> None:
    """What is known of a node's origin (its layer's name) goes over to the nodes that replace it."""
    for node in nodes:
        known = {entry.key for entry in node.metadata_props}
        node.metadata_props.extend(entry for entry in caller.metadata_props if entry.key not in known)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    return twin
