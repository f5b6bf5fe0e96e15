"""Bring the branches of an If that stays in a graph to the canonical form, each as a graph of its own.

Rewrites a MutableGraph whose types are inferred. A branch reads tensors of the graph around it as inputs; its constants
move to that graph, and its tensors have types and names that no other tensor has. A branch with a tensor of unknown
type, or without a canonical form, stays as it is, and is refused where it is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.errors import ConversionError, LimitExceeded
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard, reads, subgraphs

_MOST_AXES = 1024
BRANCHES = ("then_branch", "else_branch")


def settle_branches(graph: MutableGraph, settle: Callable[[MutableGraph], None]) -> None:
    """Rewrite the branches of every If, those within others included. settle: brings a graph to the canonical form."""
    replaced = {}
    for node in graph.nodes:
        if not is_standard(node, "If"):
            continue
        try:
            bodies = {role: _settled(graph, node, role, settle) for role in BRANCHES}
        except LimitExceeded:
            raise
        except ConversionError:
            continue
        if None not in bodies.values():
            made = helper.make_node("If", node.input, node.output, name=node.name, **bodies)
            made.metadata_props.extend(node.metadata_props)
            replaced[id(node)] = [made]
    graph.replace(replaced)


def are_settled(nodes: Iterable[onnx.NodeProto]) -> bool:
    """Whether the branches of every If have the form that `settle_branches` gives them, as far as types tell."""
    bodies = [body for node in nodes if is_standard(node, "If") for body in subgraphs(node)]
    return all(
        {name for node in body.node for name in node.output if name}
        <= {info.name for info in (*body.value_info, *body.output)}
        and are_settled(body.node)
        for body in bodies
    )


def forget_shapes_in_bodies(nodes: Iterable[onnx.NodeProto]) -> None:
    """Remove the shapes that branches state, in place: they are those of other sizes of the inputs."""
    for node in nodes:
        if not is_standard(node, "If"):
            continue
        for body in subgraphs(node):
            del body.value_info[:]
            for info in body.output:
                info.type.tensor_type.ClearField("shape")
            forget_shapes_in_bodies(body.node)


def decided_by_data(graph: MutableGraph) -> bool:
    """Whether the condition of an If depends on the values of a floating input, not on sizes alone."""
    found = {info.name for info in graph.inputs if _is_float(info.type)}
    for node in graph.nodes:
        if is_standard(node, "If") and node.input[0] in found:
            return True
        if not is_standard(node, "Shape", "Size") and not found.isdisjoint(reads(node)):
            found.update(node.output)
    return False


def _is_float(known: onnx.TypeProto) -> bool:
    kinds = onnx.TensorProto
    return known.tensor_type.elem_type in (kinds.FLOAT, kinds.DOUBLE, kinds.FLOAT16, kinds.BFLOAT16)


def _settled(
    graph: MutableGraph, node: onnx.NodeProto, role: str, settle: Callable[[MutableGraph], None]
) -> onnx.GraphProto | None:
    """The canonical form of a branch; None where it reads a tensor of unknown type, or computes one."""
    body: onnx.GraphProto = attribute(node, role)
    local = {name for inner in body.node for name in inner.output} | {t.name for t in body.initializer}
    outer = dict.fromkeys(
        [n for inner in body.node for n in reads(inner) if n not in local]
        + [info.name for info in body.output if info.name not in local]
    )
    types = {name: graph.type_of(name) for name in outer if name not in graph.constants}
    if None in types.values():
        return None
    branch = _as_graph(graph, body, {n: t for n, t in types.items() if t is not None}, outer)
    settle(branch)
    settle_branches(branch, settle)
    branch.infer_types()
    stem = f"{next(name for name in node.output if name)}/{role}"
    return _as_body(graph, branch, stem, outer)


def _as_graph(
    graph: MutableGraph, body: onnx.GraphProto, types: dict[str, onnx.TypeProto], outer: Iterable[str]
) -> MutableGraph:
    """A branch as a graph of its own. What it hands on as it is gets a node that computes it."""
    proto = onnx.ModelProto(ir_version=11)
    for domain, version in graph.opsets.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.CopyFrom(body)
    for name, known in types.items():
        proto.graph.input.add(name=name, type=known)
    # Their symbols are those of the file.
    del proto.graph.value_info[:]
    for info in proto.graph.output:
        info.type.tensor_type.ClearField("shape")
    branch = MutableGraph(proto)
    branch.constants |= {name: graph.constants[name] for name in outer if name in graph.constants}
    branch.take(graph.taken)
    return branch


def _as_body(
    graph: MutableGraph, branch: MutableGraph, stem: str, outer: Iterable[str]
) -> onnx.GraphProto | None:
    """The branch as a body, its weights in the graph around it, all of its names new."""
    known = {*outer}
    names = {name: name for name in known}
    shapes: dict[str, np.ndarray] = {}
    for name, array in branch.constants.items():
        if name in known:
            continue
        names[name] = name if name.startswith(f"{stem}/") else graph.fresh(f"{stem}/{name}")
        # Shape inference reads the constants of a body alone.
        is_shape = array.dtype.kind == "i" and array.size <= _MOST_AXES
        (shapes if is_shape else graph.constants)[names[name]] = array
    computed = [name for node in branch.nodes for name in node.output if name]
    types = {name: found for name in computed if (found := branch.type_of(name)) is not None}
    if len(types) < len(computed) or not all(one.HasField("tensor_type") for one in types.values()):
        return None
    # Names that were given here are unique already.
    names |= {n: n if n.startswith(f"{stem}/") else graph.fresh(f"{stem}/{n}") for n in computed}
    results = [info.name for info in branch.outputs]
    branch.rename({old: new for old, new in names.items() if old != new})
    nodes, outputs = branch.nodes, list[onnx.ValueInfoProto]()
    for old in results:
        own, kind = names[old], types.get(old) or branch.typed(old)
        if kind is None:
            return None
        if old not in types or own in {one.name for one in outputs}:
            # Runtimes refuse a tensor of the graph around as the result of a branch.
            own = graph.fresh(f"{stem}/result")
            nodes.append(helper.make_node("Identity", [names[old]], [own]))
        outputs.append(helper.make_value_info(own, kind))
    for inner in nodes:
        inner.name = graph.fresh(f"{next(name for name in inner.output if name)}/node")
    returned = {info.name for info in outputs}
    infos = [helper.make_value_info(names[o], t) for o, t in types.items() if names[o] not in returned]
    stored = [numpy_helper.from_array(array, name) for name, array in shapes.items()]
    return helper.make_graph(nodes, stem, [], outputs, stored, value_info=infos)
