"""Follow the axes of tensors through a graph by names, so that two models can say which axes are the same.

From a Graph and the named axes of its inputs to the axes of every tensor that they reach. A convolution keeps the names
of its axes, a Transpose moves them, a Reshape merges them and takes them apart. An axis that cannot be followed has no
name; nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from analyzer.graph.channel_axis import RECURRENT
from analyzer.graph.graph import Graph, Node
from analyzer.types import Sizes

# (name, size). An axis has several factors where axes were merged into it; the empty name is unknown.
Factor = tuple[str, int]
Axes = tuple[tuple[Factor, ...], ...]

RESHAPES = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze"})
PRODUCTS = frozenset({"MatMul", "Gemm"})
# Their outputs have the rank of an input by chance.
UNKNOWN = RECURRENT | frozenset({"Einsum", "Loop", "Scan", "If", "GatherND", "GatherElements", "ScatterND"})
# An element of the output does not belong to one element of the input, even if the shapes are equal.
MIXES = PRODUCTS | frozenset(
    {"Conv", "ConvTranspose", "Gather", "Slice", "Pad", "Concat", "CumSum", "Resize"}
)


def unnamed(shape: Sequence[int]) -> Axes:
    """Return axes without names."""
    return tuple((("", size),) for size in shape)


def named_after(tensor: str, shape: Sequence[int]) -> Axes:
    """Return axes that are named after a tensor."""
    return tuple(((f"{tensor}#{axis}", size),) for axis, size in enumerate(shape))


def completed(tensor: str, axes: Axes) -> Axes:
    """Return axes with a name for each axis that has none."""
    fresh = named_after(tensor, sizes_of(axes))
    return tuple(new if not known(old) else old for old, new in zip(axes, fresh, strict=True))


def known(axis: tuple[Factor, ...]) -> bool:
    """Return whether every factor of an axis has a name."""
    return all(name for name, _ in axis)


def sizes_of(axes: Axes) -> Sizes:
    """Return the shape of a tensor with these axes."""
    return tuple(math.prod(size for _, size in axis) for axis in axes)


def shapes_of(graph: Graph, feeds: Mapping[str, Sizes]) -> dict[str, Sizes]:
    """Return the shapes of the tensors at the sizes of the feeds, where the graph states them."""
    symbols: dict[str, int] = {}
    for name, shape in feeds.items():
        for axis, size in zip(graph.tensors[name].shape or (), shape, strict=False):
            if isinstance(axis, str):
                symbols[axis] = size
    found = dict(feeds)
    for name, tensor in graph.tensors.items():
        sizes = [symbols.get(axis) if isinstance(axis, str) else axis for axis in tensor.shape or (None,)]
        if name not in found and all(size is not None for size in sizes):
            found[name] = tuple(size for size in sizes if size is not None)
    return found


def follow(graph: Graph, node: Node, axes: Mapping[str, Axes], shape: Sizes) -> Axes:
    """Return the axes of an output of this shape from those of the inputs of its node."""
    read = [axes[name] for name in node.inputs if name in axes and graph.tensors[name].constant is None]
    if not read or node.op_type in UNKNOWN:
        return unnamed(shape)
    first = read[0]
    if node.op_type == "Transpose":
        order = node.attributes.get("perm") or reversed(range(len(first)))
        return _checked((first[axis] for axis in order), shape)
    if node.op_type in RESHAPES:
        return regrouped(first, shape)
    if node.op_type == "Gemm" and node.attributes.get("transA"):
        first = first[::-1]
    if node.op_type in PRODUCTS:
        read = [(*first[:-1], read[-1][-1])]
    return _broadcast(read, shape, merged=node.op_type not in MIXES)


def _broadcast(read: Sequence[Axes], shape: Sizes, *, merged: bool) -> Axes:
    """Return the axes of an op that keeps the order of axes, the last ones of all inputs aligned.

    merged: whether an axis that holds several factors keeps them.
    """
    if max(map(len, read)) != len(shape):
        return unnamed(shape)
    # The operands of a sum may be in another order in another model.
    read = sorted(read, key=lambda one: (sizes_of(one) != shape, not all(map(known, one)), one))
    found = []
    for back, size in zip(range(len(shape), 0, -1), shape, strict=True):
        here = [one[-back] for one in read if len(one) >= back]
        same = [axis for axis in here if math.prod(n for _, n in axis) == size and known(axis)]
        if same and (merged or len(same[0]) == 1):
            found.append(same[0])
        else:
            names = [name for name, _ in (same or here)[0]]
            found.append(((_joined(names), size),))
    return tuple(found)


def _joined(names: Sequence[str]) -> str:
    """Return a name for factors that were mixed, the same for every order of them."""
    return "*".join(sorted(names)) if all(names) else ""


def regrouped(axes: Axes, shape: Sequence[int]) -> Axes:
    """Return the axes after a Reshape: merged, taken apart, or, where neither holds, without names."""
    factors = [one for axis in axes for one in axis if one[1] != 1]
    ones = [one for axis in axes for one in axis if one[1] == 1]
    found: list[tuple[Factor, ...]] = []
    for size in shape:
        if size == 1:
            found.append((ones.pop(0) if ones else ("", 1),))
            continue
        taken: list[Factor] = []
        while factors and math.prod(n for _, n in taken) < size:
            need = size // math.prod(n for _, n in taken)
            name, whole = factors.pop(0)
            if need < whole and whole % need == 0:
                # A part has a name by its place and size, as in another model that splits the same axis.
                factors.insert(0, (f"{name}/{need}+" if name else "", whole // need))
                name, whole = (f"{name}/{need}" if name else ""), need
            taken.append((name, whole))
        if math.prod(n for _, n in taken) != size:
            return unnamed(shape)
        found.append(tuple(taken))
    return tuple(found) if not factors else unnamed(shape)


def _checked(axes: Iterable[tuple[Factor, ...]], shape: Sizes) -> Axes:
    """Return the axes where they have the shape, else axes without names."""
    found = tuple(axes)
    return found if sizes_of(found) == shape else unnamed(shape)
