"""Bring the bodies of an If or a Loop that stays in a graph to the canonical form, each as a graph of its own.

Rewrites a MutableGraph whose types are inferred. A body reads tensors of the graph around it as inputs; its weights
move to that graph, and its tensors have types and names that no other tensor has. A body with a tensor of unknown
type, or without a canonical form, stays as it is, and is refused where it is differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.errors import ConversionError, LimitExceeded
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard, reads, subgraphs
from converters.graph.tensors import shape_of

_MOST_AXES = 1024
UNSETTLED_KEY = "onnxplain.unsettled"
"""Marks a node whose bodies have no canonical form."""
BRANCHES = ("then_branch", "else_branch")
_ROLES = {"If": BRANCHES, "Loop": ("body",)}


def settle_branches(graph: MutableGraph, settle: Callable[[MutableGraph], None]) -> None:
    """Rewrite the bodies of every If and Loop, those within others included.

    settle: brings a graph to the canonical form.
    """
    replaced = {}
    for node in graph.nodes:
        if not is_standard(node, *_ROLES):
            continue
        bodies = _settled_bodies(graph, node, settle)
        if None in bodies.values():
            if all(entry.key != UNSETTLED_KEY for entry in node.metadata_props):
                node.metadata_props.add(key=UNSETTLED_KEY, value="types")
        else:
            made = helper.make_node(node.op_type, node.input, node.output, name=node.name, **bodies)
            made.metadata_props.extend(node.metadata_props)
            replaced[id(node)] = [made]
            _state_results(graph, made)
    graph.replace(replaced)


def _settled_bodies(
    graph: MutableGraph, node: onnx.NodeProto, settle: Callable[[MutableGraph], None]
) -> dict[str, onnx.GraphProto | None]:
    """The canonical form of each body of a node, None where it has none."""
    try:
        return {role: _settled(graph, node, role, settle) for role in _ROLES[node.op_type]}
    except LimitExceeded:
        raise
    except ConversionError:
        return {"": None}


def _state_results(graph: MutableGraph, node: onnx.NodeProto) -> None:
    """State the shapes of what a Loop gives, which ONNX does not infer: a carried tensor keeps its rank."""
    if node.op_type != "Loop":
        return
    body: onnx.GraphProto = attribute(node, "body")
    count = len(node.input) - 2
    for index, (name, info) in enumerate(zip(node.output, body.output[1:], strict=False)):
        known = onnx.TypeProto.FromString(info.type.SerializeToString())
        if index >= count and known.tensor_type.HasField("shape"):
            axes = [onnx.TensorShapeProto.Dimension(), *known.tensor_type.shape.dim]
            known.tensor_type.ClearField("shape")
            known.tensor_type.shape.dim.extend(axes)
        if name and name not in graph.output_names:
            graph.types[name] = known


def are_settled(nodes: Iterable[onnx.NodeProto]) -> bool:
    """Whether the bodies of every If and Loop have the form that `settle_branches` gives them, as far as types tell."""
    owners = [node for node in nodes if is_standard(node, *_ROLES)]
    owners = [node for node in owners if all(entry.key != UNSETTLED_KEY for entry in node.metadata_props)]
    bodies = [body for node in owners for body in subgraphs(node)]
    return all(
        {name for node in body.node for name in node.output if name}
        <= {info.name for info in (*body.value_info, *body.output)}
        and are_settled(body.node)
        for body in bodies
    )


def forget_shapes_in_bodies(nodes: Iterable[onnx.NodeProto]) -> None:
    """Remove the shapes that bodies state, in place: they are those of other sizes of the inputs."""
    for node in nodes:
        if not is_standard(node, *_ROLES):
            continue
        for body in subgraphs(node):
            del body.value_info[:]
            for info in (*body.input[2:], *body.output):
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
    local |= {info.name for info in body.input}
    outer = dict.fromkeys(
        [n for inner in body.node for n in reads(inner) if n not in local]
        + [info.name for info in body.output if info.name not in local]
    )
    types = {name: graph.type_of(name) for name in outer if name not in graph.constants}
    if None in types.values():
        return None
    around = {n: t for n, t in types.items() if t is not None}
    carried = _carried(graph, node, body, around, outer)
    if carried is None:
        return None
    branch = _as_graph(graph, body, {**carried, **around}, outer)
    settle(branch)
    settle_branches(branch, settle)
    branch.infer_types()
    stem = f"{next(name for name in node.output if name)}/{role}"
    return _as_body(graph, branch, stem, outer, list(carried))


def _carried(
    graph: MutableGraph,
    node: onnx.NodeProto,
    body: onnx.GraphProto,
    around: dict[str, onnx.TypeProto],
    outer: Iterable[str],
) -> dict[str, onnx.TypeProto] | None:
    """The types of a body's own inputs: of what a Loop carries, the axes that stay as they begin.

    None where the rank of a carried tensor is unknown, or changes.
    """
    if not body.input:
        return {}
    found = {info.name: onnx.TypeProto.FromString(info.type.SerializeToString()) for info in body.input[:2]}
    for info, begin in zip(body.input[2:], node.input[2:], strict=True):
        known = graph.typed(begin)
        if known is None or shape_of(known) is None:
            return None
        found[info.name] = onnx.TypeProto.FromString(known.SerializeToString())
    for _ in range(2):
        trial = _as_graph(graph, body, {**found, **around}, outer)
        trial.infer_types()
        changed = False
        for info, result in zip(body.input[2:], trial.outputs[1:], strict=False):
            axes, after = found[info.name].tensor_type.shape.dim, shape_of(result.type)
            if after is None or len(after) != len(axes):
                return None
            for axis, size in zip(axes, after, strict=True):
                if size != (axis.dim_value if axis.HasField("dim_value") else axis.dim_param or None):
                    changed |= axis.HasField("dim_value") or bool(axis.dim_param)
                    axis.Clear()
        if not changed:
            break
    return found


def _as_graph(
    graph: MutableGraph, body: onnx.GraphProto, types: dict[str, onnx.TypeProto], outer: Iterable[str]
) -> MutableGraph:
    """A branch as a graph of its own. What it hands on as it is gets a node that computes it."""
    proto = onnx.ModelProto(ir_version=11)
    for domain, version in graph.opsets.items():
        proto.opset_import.add(domain=domain, version=version)
    proto.graph.CopyFrom(body)
    del proto.graph.input[:]
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
    graph: MutableGraph, branch: MutableGraph, stem: str, outer: Iterable[str], own_inputs: Sequence[str]
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
    given = {name: branch.typed(name) for name in own_inputs}
    computed = [name for node in branch.nodes for name in node.output if name]
    types = {name: found for name in computed if (found := branch.type_of(name)) is not None}
    if len(types) < len(computed) or not all(one.HasField("tensor_type") for one in types.values()):
        return None
    # Names that were given here are unique already.
    mine = (*own_inputs, *computed)
    names |= {n: n if n.startswith(f"{stem}/") else graph.fresh(f"{stem}/{n}") for n in mine}
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
    inputs = [
        helper.make_value_info(names[name], known) for name, known in given.items() if known is not None
    ]
    return helper.make_graph(nodes, stem, inputs, outputs, stored, value_info=infos)
