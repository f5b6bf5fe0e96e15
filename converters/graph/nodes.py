"""Read and rewrite one node: its attributes, its subgraphs, and the names that it reads and writes."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads: its inputs, and what its subgraphs capture."""
    yield from (name for name in node.input if name)
    for body in subgraphs(node):
        local = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
        local |= {name for inner in body.node for name in inner.output}
        for inner in body.node:
            yield from (name for name in reads(inner) if name not in local)
        yield from (info.name for info in body.output if info.name not in local)


def written(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node gives: its outputs, and all names inside its subgraphs."""
    yield from node.output
    for body in subgraphs(node):
        yield from (info.name for info in body.input)
        yield from (name for inner in body.node for name in written(inner))


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def is_standard(node: onnx.NodeProto, *op_types: str) -> bool:
    """Whether a node is one of these ops of the ONNX standard (any op, where none is named)."""
    return node.domain in ("", "ai.onnx") and (not op_types or node.op_type in op_types)


def attribute(node: onnx.NodeProto, name: str, default: float | int | None = None) -> Any:
    """Return a node's attribute, or `default` where it is not given: a float as ONNX stores it, in float32."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return list(value) if entry.type == onnx.AttributeProto.INTS else value
    return float(np.float32(default)) if isinstance(default, float) else default


def rename_in(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    """Rename tensors in one node, and in its subgraphs as far as they capture them."""
    for field in (node.input, node.output):
        for index, name in enumerate(field):
            if name in names:
                field[index] = names[name]
    for body in subgraphs(node):
        local = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
        local |= {name for inner in body.node for name in inner.output}
        outer = {old: new for old, new in names.items() if old not in local}
        for inner in body.node:
            rename_in(inner, outer)
        for info in body.output:
            info.name = outer.get(info.name, info.name)


def drop_unused_outputs(node: onnx.NodeProto, unread: Collection[str]) -> None:
    """Remove the names of optional outputs that nothing reads: a MaxPool without Indices stays fast on the runtime."""
    if not is_standard(node) or not onnx.defs.has(node.op_type):
        return
    formal = onnx.defs.get_schema(node.op_type).outputs
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    for index, name in enumerate(node.output):
        if name in unread and index < len(formal) and formal[index].option == optional:
            node.output[index] = ""
    while node.output and not node.output[-1]:
        node.output.pop()
