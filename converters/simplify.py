"""Remove what computes nothing, and make shapes constant where they are known.

Rewrites a Draft whose types are inferred: Constant nodes, Identity, inference Dropout, casts to the own
type, lists of tensors (SplitToSequence, SequenceConstruct, SequenceAt), branches whose condition is
known, all-zero initial states; Shape of known shapes, and Reshape whose result has at most one
symbolic axis. Names of graph outputs never change.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.draft import Draft, Shape, attribute, is_standard
from converters.sequences import lower_sequences

_RECURRENT_STATES = {"RNN": (5,), "GRU": (5,), "LSTM": (5, 6)}


def simplify(draft: Draft) -> bool:
    """One round of every rule. Returns whether anything changed."""
    changed = _lift_constants(draft)
    changed |= lower_sequences(draft)
    changed |= _choose_branches(draft)
    changed |= _fix_shapes(draft)
    changed |= _join_transposes(draft)
    changed |= _remove_copies(draft)
    return changed


def _lift_constants(draft: Draft) -> bool:
    """Constant nodes become initializers."""
    lifted = []
    for node in draft.nodes:
        if is_standard(node, "Constant") and node.output[0] not in draft.output_names:
            value = _constant_value(node)
            if value is not None:
                draft.constants[node.output[0]] = value
                lifted.append(node)
    draft.remove(lifted)
    return bool(lifted)


def _constant_value(node: onnx.NodeProto) -> np.ndarray | None:
    (entry,) = node.attribute
    value = helper.get_attribute_value(entry)
    if entry.name == "value":
        return numpy_helper.to_array(value)
    if entry.name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    if entry.name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if entry.name in ("value_string", "value_strings"):
        return np.asarray(value, object)
    return None


def _remove_copies(draft: Draft) -> bool:
    """Nodes that hand on their first input are removed; the graph's own names win over a node's."""
    names: dict[str, str] = {}
    removed = []
    renamed: set[str] = set()
    fixed = draft.output_names | draft.constants.keys() | {info.name for info in draft.inputs}
    for node in draft.nodes:
        if not _is_copy(draft, node):
            continue
        source, copy = node.input[0], node.output[0]
        while source in names:
            source = names[source]
        if copy not in draft.output_names:
            names[copy] = source
        elif source not in fixed and source not in renamed:
            names[source] = copy
            renamed.update((source, copy))
        else:
            continue
        removed.append(node)
    draft.remove(removed)
    draft.rename(names)
    return bool(removed)


def _join_transposes(draft: Draft) -> bool:
    """A Transpose of a Transpose that nobody else reads becomes one of the first one's data."""
    uses, producers, changed = draft.uses(), draft.producers(), False
    for node in draft.nodes:
        before = producers.get(node.input[0]) if is_standard(node, "Transpose") else None
        if before is None or not is_standard(before, "Transpose") or uses[node.input[0]] != 1:
            continue
        first, second = attribute(before, "perm"), attribute(node, "perm")
        if isinstance(first, list) and isinstance(second, list):
            uses[node.input[0]] -= 1
            node.input[0] = before.input[0]
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("perm", [first[axis] for axis in second]))
            uses[node.input[0]] += 1
            changed = True
    return changed


def _is_copy(draft: Draft, node: onnx.NodeProto) -> bool:
    if not is_standard(node) or not node.input or not node.input[0]:
        return False
    if node.op_type == "Identity":
        return True
    if node.op_type == "Transpose":
        permutation = attribute(node, "perm")
        return isinstance(permutation, list) and permutation == sorted(permutation)
    if node.op_type == "Dropout":
        return _is_inference_dropout(draft, node)
    if node.op_type == "Cast":
        known = draft.type_of(node.input[0])
        return known is not None and known.tensor_type.elem_type == attribute(node, "to")
    return False


def _is_inference_dropout(draft: Draft, node: onnx.NodeProto) -> bool:
    if len(node.output) > 1 and node.output[1]:  # a mask that nobody reads has lost its name
        return False
    training = node.input[2] if len(node.input) > 2 else ""
    return not training or (training in draft.constants and not draft.constants[training].any())


def _choose_branches(draft: Draft) -> bool:
    """An If whose condition is known is replaced by its branch."""
    chosen = [n for n in draft.nodes if is_standard(n, "If") and n.input[0] in draft.constants]
    for node in chosen:
        wanted = "then_branch" if draft.constants[node.input[0]].all() else "else_branch"
        body = next(entry.g for entry in node.attribute if entry.name == wanted)
        inner = {tensor.name for tensor in body.initializer} | {
            name for n in body.node for name in n.output if name
        }
        names = {name: draft.fresh(name) for name in inner}
        branch = Draft(helper.make_model(body))
        branch.rename(names)
        for name, array in branch.constants.items():
            draft.constants[names[name]] = array
        copies = [
            helper.make_node("Identity", [names.get(info.name, info.name)], [output])
            for info, output in zip(body.output, node.output, strict=True)
        ]
        position = next(index for index, other in enumerate(draft.nodes) if other is node)
        draft.nodes[position : position + 1] = [*branch.nodes, *copies]
    return bool(chosen)


def _fix_shapes(draft: Draft) -> bool:
    """Shape of a known shape becomes a constant, Reshape's target a constant with at most one free axis."""
    changed, removed = False, []
    for node in draft.nodes:
        if is_standard(node, "Shape", "Size") and node.output[0] not in draft.output_names:
            value = _known_shape(draft, node)
            if value is not None:
                draft.constants[node.output[0]] = value
                removed.append(node)
        elif is_standard(node, "CastLike"):
            changed |= _fix_cast(draft, node)
        elif is_standard(node, "Reshape"):
            changed |= _fix_reshape(draft, node)
        elif is_standard(node, *_RECURRENT_STATES):
            changed |= _drop_zero_states(draft, node)
    draft.remove(removed)
    return changed or bool(removed)


def _known_shape(draft: Draft, node: onnx.NodeProto) -> np.ndarray | None:
    shape = draft.shape(node.input[0])
    if shape is None:
        return None
    if node.op_type == "Shape":
        # An absent end is beyond the last axis; an explicit one is clamped by slicing as ONNX clamps it.
        shape = shape[slice(attribute(node, "start", 0), attribute(node, "end"))]
    if not all(isinstance(size, int) for size in shape):
        return None
    return np.asarray(shape if node.op_type == "Shape" else int(np.prod(shape, dtype=np.int64)), np.int64)


def _fix_cast(draft: Draft, node: onnx.NodeProto) -> bool:
    """A cast to the type of another tensor becomes a cast to that type."""
    like = draft.type_of(node.input[1])
    constant = draft.constants.get(node.input[1])
    kind = like.tensor_type.elem_type if like is not None else 0
    if constant is not None:
        kind = helper.np_dtype_to_tensor_dtype(constant.dtype)
    if not kind:
        return False
    node.op_type = "Cast"
    del node.input[1]
    node.attribute.append(helper.make_attribute("to", kind))
    return True


def _fix_reshape(draft: Draft, node: onnx.NodeProto) -> bool:
    """A computed target, and a -1 that stands for the batch, become a constant whose 0 copies the batch."""
    target, given = draft.shape(node.output[0]), draft.shape(node.input[0])
    if node.input[1] in draft.constants:
        if not _copies_batch(draft.constants[node.input[1]], given):
            return False
        target = (given[0], *draft.constants[node.input[1]][1:].tolist()) if given else None
    if target is None or any(size == 0 for size in target):
        return False
    sizes: list[int] = []
    for axis, size in enumerate(target):
        same = given is not None and axis < len(given) and isinstance(size, str) and given[axis] == size
        sizes.append(size if isinstance(size, int) else (0 if same else -1))
    if sizes.count(-1) > 1:
        return False
    name = draft.fresh(f"{node.output[0]}.shape")
    draft.constants[name] = np.asarray(sizes, np.int64)
    node.input[1] = name
    kept = [entry for entry in node.attribute if entry.name != "allowzero"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return True


def _copies_batch(target: np.ndarray, given: Shape | None) -> bool:
    """Whether a leading -1 is the data's first axis: all sizes behind it are known and as many."""
    if not given or isinstance(given[0], int) or given[0] is None or not target.size or target[0] != -1:
        return False
    rest = [size for size in given[1:] if isinstance(size, int)]
    return (
        len(rest) == len(given) - 1 and bool((target[1:] > 0).all()) and np.prod(rest) == np.prod(target[1:])
    )


def _drop_zero_states(draft: Draft, node: onnx.NodeProto) -> bool:
    """Zero is a recurrent layer's default initial state; a stored one would fix the batch."""
    changed = False
    for index in _RECURRENT_STATES[node.op_type]:
        state = draft.constants.get(node.input[index]) if index < len(node.input) else None
        if state is not None and not state.any():
            node.input[index] = ""
            changed = True
    return changed
