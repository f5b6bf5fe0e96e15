"""Remove what computes nothing.

Rewrites a MutableGraph whose types are inferred: Constant nodes, Identity, inference Dropout, casts to the own type,
sums with −0.0, differences with 0.0, products by one, Transposes and Squeezes that cancel, branches whose condition is
known, initial states of zeros; with lists of tensors (sequences.py), computed shapes (shapes.py) and functions in
primitives (joins). Names of graph outputs never change.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from converters.graph.insertion import adopt_constants, inherit_origin, instantiate
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard
from converters.graph.tensors import value_of
from converters.passes.exactness import is_zero
from converters.passes.joins import join_primitives
from converters.passes.joins.pools import name_global_pools
from converters.passes.sequences import lower_sequences
from converters.passes.shapes import fix_shapes, join_reshapes

# These hand on the values of their first input, rearranged or repeated.
_REARRANGING = ("Expand", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")
_RECURRENT_STATES = {"RNN": (5,), "GRU": (5,), "LSTM": (5, 6)}


def simplify(graph: MutableGraph) -> bool:
    """One round of every rule. Returns whether anything changed."""
    changed = _lift_constants(graph)
    changed |= lower_sequences(graph)
    changed |= _choose_branches(graph)
    changed |= _fix_casts(graph)
    changed |= _decide_choices(graph)
    changed |= _drop_zero_states(graph)
    changed |= fix_shapes(graph)
    changed |= _join_transposes(graph)
    changed |= _cancel_squeezes(graph)
    changed |= name_global_pools(graph)
    changed |= join_primitives(graph)
    changed |= join_reshapes(graph)
    changed |= _remove_copies(graph)
    return changed


def _lift_constants(graph: MutableGraph) -> bool:
    """Constant nodes become initializers."""
    lifted = []
    for node in graph.nodes:
        if is_standard(node, "Constant") and node.output[0] not in graph.output_names:
            value = value_of(node)
            if value is not None:
                graph.constants[node.output[0]] = value
                lifted.append(node)
    graph.remove(lifted)
    return bool(lifted)


def _remove_copies(graph: MutableGraph) -> bool:
    """Nodes that hand on their first input are removed; the graph's own names win over a node's."""
    names: dict[str, str] = {}
    removed = []
    renamed: set[str] = set()
    fixed = graph.output_names | graph.constants.keys() | {info.name for info in graph.inputs}
    for node in graph.nodes:
        if not _is_copy(graph, node):
            continue
        source, copy = node.input[0], node.output[0]
        while source in names:
            source = names[source]
        if copy not in graph.output_names:
            names[copy] = source
        elif source not in fixed and source not in renamed:
            names[source] = copy
            renamed.update((source, copy))
        else:
            continue
        removed.append(node)
    graph.remove(removed)
    graph.rename(names)
    return bool(removed)


def _join_transposes(graph: MutableGraph) -> bool:
    """A Transpose of a Transpose that nobody else reads becomes one of the first one's data."""
    changed = False
    for node in graph.nodes:
        before = graph.producer(node.input[0]) if is_standard(node, "Transpose") else None
        if before is None or not is_standard(before, "Transpose") or graph.use_count(node.input[0]) != 1:
            continue
        first, second = attribute(before, "perm"), attribute(node, "perm")
        if isinstance(first, list) and isinstance(second, list):
            graph.set_input(node, 0, before.input[0])
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("perm", [first[axis] for axis in second]))
            changed = True
    return changed


def _cancel_squeezes(graph: MutableGraph) -> bool:
    """A Squeeze of the axes that an Unsqueeze brought hands on what that was given, and the other way round."""
    changed = False
    for node in graph.nodes:
        before = graph.producer(node.input[0]) if is_standard(node, "Squeeze", "Unsqueeze") else None
        if before is None or {before.op_type, node.op_type} != {"Squeeze", "Unsqueeze"}:
            continue
        first, second = (
            graph.constants.get(one.input[1]) if len(one.input) > 1 else None for one in (before, node)
        )
        if first is not None and second is not None and np.array_equal(first, second):
            node.op_type = "Identity"
            graph.set_inputs(node, [before.input[0]])
            changed = True
    return changed


def _is_copy(graph: MutableGraph, node: onnx.NodeProto) -> bool:
    if not is_standard(node) or not node.input or not node.input[0]:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type in ("Reshape", "Expand"):
        return _same_shape(graph, node.input[0], node.output[0])
    if node.op_type == "Transpose":
        permutation = attribute(node, "perm")
        return isinstance(permutation, list) and permutation == sorted(permutation)
    if node.op_type == "Dropout":
        return _is_inference_dropout(graph, node)
    if node.op_type == "Cast":
        known = graph.type_of(node.input[0])
        return known is not None and known.tensor_type.elem_type == attribute(node, "to")
    return _is_neutral(graph, node)


def _is_neutral(graph: MutableGraph, node: onnx.NodeProto) -> bool:
    """Return whether a sum or product with a constant keeps the bits of every number, and the shape."""
    if node.op_type not in ("Add", "Sub", "Mul", "Div"):
        return False
    constant = graph.constants.get(node.input[1])
    if constant is None or not _same_shape(graph, node.input[0], node.output[0]):
        return False
    if node.op_type in ("Mul", "Div"):
        return bool((constant == 1).all())
    # −0.0 + 0.0 and −0.0 − (−0.0) are 0.0.
    return is_zero(constant, negative=node.op_type == "Add")


def _same_shape(graph: MutableGraph, before: str, after: str) -> bool:
    known = graph.shape(before)
    return known is not None and None not in known and known == graph.shape(after)


def _decide_choices(graph: MutableGraph) -> bool:
    """A Where that always takes the same side, and broadcasts nothing, hands that side on."""
    changed = False
    for node in graph.nodes:
        condition = graph.constants.get(node.input[0]) if is_standard(node, "Where") else None
        if condition is None or (condition.any() and not condition.all()):
            continue
        chosen = node.input[1 if condition.all() else 2]
        if _same_shape(graph, chosen, node.output[0]):
            node.op_type = "Identity"
            graph.set_inputs(node, [chosen])
            changed = True
    return changed


def _is_inference_dropout(graph: MutableGraph, node: onnx.NodeProto) -> bool:
    if len(node.output) > 1 and node.output[1]:  # a mask that nobody reads has lost its name
        return False
    training = node.input[2] if len(node.input) > 2 else ""
    return not training or (training in graph.constants and not graph.constants[training].any())


def _choose_branches(graph: MutableGraph) -> bool:
    """An If whose condition is known is replaced by its branch."""
    replaced = {}
    for node in graph.nodes:
        if not is_standard(node, "If") or node.input[0] not in graph.constants:
            continue
        wanted = "then_branch" if graph.constants[node.input[0]].all() else "else_branch"
        branch = MutableGraph(helper.make_model(attribute(node, wanted)))
        stem = next(name for name in node.output if name)
        outputs = [(info.name, name) for info, name in zip(branch.outputs, node.output, strict=True)]
        given = adopt_constants(graph, branch, stem)
        replaced[id(node)], _ = instantiate(graph, branch.nodes, given, stem, outputs)
        inherit_origin(replaced[id(node)], node)
    graph.replace(replaced)
    return bool(replaced)


def _fix_casts(graph: MutableGraph) -> bool:
    """Casts to the type of another tensor become casts to that type."""
    return sum(_fix_cast(graph, node) for node in graph.nodes if is_standard(node, "CastLike")) > 0


def _fix_cast(graph: MutableGraph, node: onnx.NodeProto) -> bool:
    """A cast to the type of another tensor becomes a cast to that type."""
    like = graph.type_of(node.input[1])
    constant = graph.constants.get(node.input[1])
    kind = like.tensor_type.elem_type if like is not None else 0
    if constant is not None:
        kind = helper.np_dtype_to_tensor_dtype(constant.dtype)
    if not kind:
        return False
    node.op_type = "Cast"
    graph.set_inputs(node, node.input[:1])
    node.attribute.append(helper.make_attribute("to", kind))
    return True


def _drop_zero_states(graph: MutableGraph) -> bool:
    """Zero is a recurrent layer's default initial state; a stored one would fix the batch."""
    changed = False
    for node in graph.nodes:
        if not is_standard(node, *_RECURRENT_STATES):
            continue
        for index in _RECURRENT_STATES[node.op_type]:
            if index < len(node.input) and node.input[index] and _is_zero(graph, node.input[index]):
                graph.set_input(node, index, "")
                changed = True
    return changed


def _is_zero(graph: MutableGraph, name: str) -> bool:
    """Return whether a tensor holds 0.0 alone, whatever its shape."""
    while name not in graph.constants:
        node = graph.producer(name)
        if node is None or not is_standard(node, *_REARRANGING):
            return False
        name = node.input[0]
    return is_zero(graph.constants[name])
