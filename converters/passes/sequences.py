"""Replace lists of tensors, and optional tensors, by the tensors themselves.

Rewrites a MutableGraph whose types are inferred. What is known of a list is followed from where it is made
(SplitToSequence, SequenceConstruct, SequenceEmpty) through insertions and erasures to where it is read:
SequenceAt, SequenceLength and ConcatFromSequence become plain references, constants, Split and Concat. An
Optional that holds something is that thing. A list that is read in any other way stays beside its items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from onnx import helper

from converters.graph.insertion import inherit_origin
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard


def lower_sequences(graph: MutableGraph) -> bool:
    """Replace every reading of a list whose items are known. Returns whether there was any."""
    lists = _Lists(graph)
    replaced = {}
    for node in graph.nodes:
        if is_standard(node, *_MAKERS):
            lists.make(node)
        elif is_standard(node, *_READERS):
            nodes = _READERS[node.op_type](graph, lists, node)
            if nodes is not None:
                inherit_origin(nodes, node)
                replaced[id(node)] = nodes
    for split, sizes in lists.needed_splits():
        replaced[id(split)] = [*_split(graph, split, lists.items[split.output[0]], sizes), split]
    graph.replace(replaced)
    return bool(replaced)


class _Lists:
    """The items of every list that is known, by the list's name."""

    def __init__(self, graph: MutableGraph) -> None:
        self.graph = graph
        self.items: dict[str, list[str]] = {}
        self._split_of: dict[str, onnx.NodeProto] = {}
        self._sizes: dict[str, list[int]] = {}
        self._used: dict[str, onnx.NodeProto] = {}
        # Items of a split are named as they are first picked.
        self._picked: dict[tuple[str, int], str] = {}
        for node in graph.nodes:
            if is_standard(node, "SequenceAt") and node.input[1] in graph.constants:
                key = node.input[0], int(graph.constants[node.input[1]].item())
                self._picked.setdefault(key, node.output[0])

    def make(self, node: onnx.NodeProto) -> None:
        """Follow a node that makes a list, as far as its items are known."""
        name = node.output[0]
        if node.op_type == "SequenceEmpty":
            self.items[name] = []
        elif node.op_type == "SequenceConstruct":
            self.items[name] = list(node.input)
        elif node.op_type == "SplitToSequence":
            sizes = _split_sizes(self.graph, node)
            if sizes is not None:
                self._name_pieces(node, sizes)
        elif node.input[0] in self.items:
            self._change(node, list(self.items[node.input[0]]))

    def use(self, name: str) -> None:
        """Note that an item is read: if a list was split for it, the split is needed."""
        split = self._split_of.get(name)
        if split is not None:
            self._used[split.output[0]] = split

    def needed_splits(self) -> list[tuple[onnx.NodeProto, list[int]]]:
        """The splits whose items are read, with the items' sizes."""
        return [(node, self._sizes[name]) for name, node in self._used.items()]

    def _name_pieces(self, node: onnx.NodeProto, sizes: list[int]) -> None:
        name, count = node.output[0], len(sizes)
        picked = (self._picked.get((name, i)) or self._picked.get((name, i - count)) for i in range(count))
        self.items[name] = [item or self.graph.fresh(f"{name}_{i}") for i, item in enumerate(picked)]
        self._split_of |= dict.fromkeys(self.items[name], node)
        self._sizes[name] = sizes

    def _change(self, node: onnx.NodeProto, items: list[str]) -> None:
        inserts = node.op_type == "SequenceInsert"
        at = 2 if inserts else 1
        position = node.input[at] if len(node.input) > at else ""
        if position and position not in self.graph.constants:
            return
        last = len(items) if inserts else len(items) - 1
        index = int(self.graph.constants[position].item()) if position else last
        index += len(items) if index < 0 else 0
        if not 0 <= index <= last:
            return
        if inserts:
            items.insert(index, node.input[1])
        else:
            del items[index]
        self.items[node.output[0]] = items


def _split_sizes(graph: MutableGraph, node: onnx.NodeProto) -> list[int] | None:
    shape = graph.shape(node.input[0])
    extent = shape[int(attribute(node, "axis", 0) or 0)] if shape is not None else None
    step = 1
    if len(node.input) > 1 and node.input[1]:
        split = graph.constants.get(node.input[1])
        if split is None:
            return None
        if split.ndim:
            return [int(size) for size in split]
        step = int(split)
    if not isinstance(extent, int):
        return None
    return [min(step, extent - start) for start in range(0, extent, step)]


def _split(
    graph: MutableGraph, node: onnx.NodeProto, items: list[str], sizes: list[int]
) -> list[onnx.NodeProto]:
    """A SplitToSequence as a Split; without `split` and `keepdims` its items lose the axis."""
    axis = int(attribute(node, "axis", 0) or 0)
    squeezes = len(node.input) < 2 and not attribute(node, "keepdims", 1)
    pieces = [graph.fresh(f"{name}.kept") for name in items] if squeezes else items
    lengths = graph.fresh(f"{node.output[0]}.sizes")
    graph.constants[lengths] = np.asarray(sizes, np.int64)
    nodes = [helper.make_node("Split", [node.input[0], lengths], pieces, name=node.name, axis=axis)]
    if squeezes:
        axes = _axes(graph, node, axis)
        nodes += [
            helper.make_node("Squeeze", [piece, axes], [name])
            for piece, name in zip(pieces, items, strict=True)
        ]
    inherit_origin(nodes, node)
    return nodes


def _axes(graph: MutableGraph, node: onnx.NodeProto, axis: int) -> str:
    name = graph.fresh(f"{node.output[0]}.axes")
    graph.constants[name] = np.asarray([axis], np.int64)
    return name


def _pick(graph: MutableGraph, lists: _Lists, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    items, position = lists.items.get(node.input[0]), graph.constants.get(node.input[1])
    if items is None or position is None or not -len(items) <= int(position.item()) < len(items):
        return None
    item = items[int(position.item())]
    lists.use(item)
    # A split may write an item under the very name that it is picked as.
    return [] if item == node.output[0] else [helper.make_node("Identity", [item], list(node.output))]


def _count(graph: MutableGraph, lists: _Lists, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    items = lists.items.get(node.input[0])
    if items is None or node.output[0] in graph.output_names:
        return None
    graph.constants[node.output[0]] = np.asarray(len(items), np.int64)
    return []


def _join(graph: MutableGraph, lists: _Lists, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    items = lists.items.get(node.input[0])
    if not items:
        return None
    for item in items:
        lists.use(item)
    axis = int(attribute(node, "axis", 0) or 0)
    if not attribute(node, "new_axis", 0):
        return [helper.make_node("Concat", items, list(node.output), name=node.name, axis=axis)]
    axes = _axes(graph, node, axis)
    expanded = [graph.fresh(f"{node.output[0]}.item_{index}") for index in range(len(items))]
    nodes = [
        helper.make_node("Unsqueeze", [item, axes], [name])
        for item, name in zip(items, expanded, strict=True)
    ]
    return [*nodes, helper.make_node("Concat", expanded, list(node.output), name=node.name, axis=axis)]


def _content(graph: MutableGraph, lists: _Lists, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """What is in an optional that is known to hold something."""
    known = graph.typed(node.input[0]) if node.input else None
    if known is None or known.HasField("optional_type") or not known.WhichOneof("value"):
        return None
    return [helper.make_node("Identity", [node.input[0]], list(node.output))]


def _presence(graph: MutableGraph, lists: _Lists, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """Whether an optional holds something: an omitted input does not, a tensor or a list does."""
    known = graph.typed(node.input[0]) if node.input and node.input[0] else None
    absent = not node.input or not node.input[0]
    undecided = not absent and (
        known is None or known.HasField("optional_type") or not known.WhichOneof("value")
    )
    if undecided or node.output[0] in graph.output_names:
        return None
    graph.constants[node.output[0]] = np.asarray(not absent)
    return []


def _wrap(graph: MutableGraph, lists: _Lists, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """An Optional around something that is there, and that nobody gets to see wrapped."""
    if not node.input or not node.input[0] or node.output[0] in graph.output_names:
        return None
    # The wrapping's own type must not outlive it.
    graph.types.pop(node.output[0], None)
    return [helper.make_node("Identity", [node.input[0]], list(node.output))]


_MAKERS = ("SplitToSequence", "SequenceConstruct", "SequenceEmpty", "SequenceInsert", "SequenceErase")
_READERS: dict[str, Callable[[MutableGraph, _Lists, onnx.NodeProto], Sequence[onnx.NodeProto] | None]] = {
    "SequenceAt": _pick,
    "SequenceLength": _count,
    "ConcatFromSequence": _join,
    "OptionalGetElement": _content,
    "OptionalHasElement": _presence,
    "Optional": _wrap,
}
