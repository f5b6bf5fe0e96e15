"""Replace lists of tensors by the tensors themselves.

Rewrites a Draft: SplitToSequence, SequenceConstruct, SequenceAt, SequenceLength and ConcatFromSequence become
Split, Concat and plain references. A list that is read in any other way stays.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from converters.draft import Draft, attribute, is_standard

_READERS = ("SequenceAt", "ConcatFromSequence", "SequenceLength")


def lower_sequences(draft: Draft) -> bool:
    """Lower every list whose length is known and whose readers all pick known items or concatenate."""
    made = [node for node in draft.nodes if is_standard(node, "SplitToSequence", "SequenceConstruct")]
    if not made:
        return False
    consumers, changed = draft.consumers(), False
    for node in made:
        readers = consumers.get(node.output[0], [])
        if node.output[0] in draft.output_names or not all(_is_simple(draft, reader) for reader in readers):
            continue
        items = _construct(draft, node, readers)
        if items is not None:
            for reader in readers:
                _read(draft, reader, items)
            changed = True
    return changed


def _is_simple(draft: Draft, node: onnx.NodeProto) -> bool:
    if not is_standard(node, *_READERS):
        return False
    return node.op_type != "SequenceAt" or node.input[1] in draft.constants


def _construct(draft: Draft, node: onnx.NodeProto, readers: list[onnx.NodeProto]) -> list[str] | None:
    """The names of a list's items; a SplitToSequence becomes a Split that is named after its readers."""
    if node.op_type == "SequenceConstruct":
        items = list(node.input)
        draft.remove([node])
        return items
    sizes = _split_sizes(draft, node)
    if sizes is None:
        return None
    axis = int(attribute(node, "axis", 0) or 0)
    squeezes = len(node.input) < 2 and not attribute(node, "keepdims", 1)
    items = _item_names(draft, node, readers, len(sizes))
    pieces = [draft.fresh(f"{name}.kept") for name in items] if squeezes else items
    lengths, axes = draft.fresh(f"{node.output[0]}.sizes"), draft.fresh(f"{node.output[0]}.axes")
    draft.constants[lengths] = np.asarray(sizes, np.int64)
    replacement = [helper.make_node("Split", [node.input[0], lengths], pieces, name=node.name, axis=axis)]
    replacement[0].metadata_props.extend(node.metadata_props)
    if squeezes:
        draft.constants[axes] = np.asarray([axis], np.int64)
        replacement += [
            helper.make_node("Squeeze", [piece, axes], [name])
            for piece, name in zip(pieces, items, strict=True)
        ]
    _replace(draft, node, replacement)
    return items


def _split_sizes(draft: Draft, node: onnx.NodeProto) -> list[int] | None:
    shape = draft.shape(node.input[0])
    axis = int(attribute(node, "axis", 0) or 0)
    extent = shape[axis] if shape is not None else None
    if len(node.input) > 1 and node.input[1]:
        split = draft.constants.get(node.input[1])
        if split is None:
            return None
        if split.ndim:
            return [int(size) for size in split]
        step = int(split)
    else:
        step = 1
    if not isinstance(extent, int):
        return None
    return [min(step, extent - start) for start in range(0, extent, step)]


def _item_names(draft: Draft, node: onnx.NodeProto, readers: list[onnx.NodeProto], count: int) -> list[str]:
    """Each item takes the name under which it is first picked from the list."""
    names = [""] * count
    for reader in readers:
        if reader.op_type == "SequenceAt":
            index = int(draft.constants[reader.input[1]]) % count
            names[index] = names[index] or f"{reader.output[0]}"
    return [name or draft.fresh(f"{node.output[0]}_{index}") for index, name in enumerate(names)]


def _read(draft: Draft, reader: onnx.NodeProto, items: list[str]) -> None:
    if reader.op_type == "SequenceAt":
        item = items[int(draft.constants[reader.input[1]]) % len(items)]
        copy = helper.make_node("Identity", [item], list(reader.output), name=reader.name)
        _replace(draft, reader, [] if item == reader.output[0] else [copy])
    elif reader.op_type == "SequenceLength":
        draft.constants[reader.output[0]] = np.asarray(len(items), np.int64)
        draft.remove([reader])
    else:
        _replace(draft, reader, _concat(draft, reader, items))


def _concat(draft: Draft, reader: onnx.NodeProto, items: list[str]) -> list[onnx.NodeProto]:
    axis = int(attribute(reader, "axis", 0) or 0)
    if not attribute(reader, "new_axis", 0):
        return [helper.make_node("Concat", items, list(reader.output), name=reader.name, axis=axis)]
    axes = draft.fresh(f"{reader.output[0]}.axes")
    draft.constants[axes] = np.asarray([axis], np.int64)
    expanded = [draft.fresh(f"{reader.output[0]}.item_{index}") for index in range(len(items))]
    nodes = [
        helper.make_node("Unsqueeze", [item, axes], [name])
        for item, name in zip(items, expanded, strict=True)
    ]
    return [*nodes, helper.make_node("Concat", expanded, list(reader.output), name=reader.name, axis=axis)]


def _replace(draft: Draft, node: onnx.NodeProto, replacement: list[onnx.NodeProto]) -> None:
    position = next(index for index, other in enumerate(draft.nodes) if other is node)
    draft.nodes[position : position + 1] = replacement
