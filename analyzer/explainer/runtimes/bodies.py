"""Write an op as the nodes of the body that the ONNX standard defines it by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper

from analyzer.explainer.runtimes.mutable import Writer
from converters.graph.nodes import is_standard, rename_in


def has_body(op: Writer) -> bool:
    """Return whether the standard defines the op of a node by other ops."""
    schema: Any = onnx.defs.get_schema(op.node.op_type, op.model.opset)
    return bool(schema.has_function or schema.has_context_dependent_function)


def standard_body(op: Writer) -> Sequence[str] | None:
    """Write the nodes of a node's standard body, and return its outputs; None where the types do not give one."""
    node, read = op.node, list(dict.fromkeys(name for name in op.node.input if name))
    types = [op.type_of(name) for name in read]
    if not has_body(op) or any(known is None or not known.WhichOneof("value") for known in types):
        return None
    inputs = [onnx.ValueInfoProto(name=name, type=known) for name, known in zip(read, types, strict=True)]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    stated = onnx.NodeProto()
    stated.CopyFrom(node)
    given = {entry.name for entry in node.attribute}
    # The inliner fills in no defaults.
    formal = onnx.defs.get_schema(node.op_type, op.model.opset).attributes
    stated.attribute.extend(
        entry.default_value
        for name, entry in formal.items()
        if name not in given and entry.default_value.name
    )
    model = helper.make_model(
        helper.make_graph([stated], "one", inputs, outputs),
        opset_imports=[helper.make_opsetid("", op.model.opset)],
    )
    try:
        model = onnx.shape_inference.infer_shapes(model)
        inlined = onnx.inliner.inline_selected_functions(
            model, [("", node.op_type)], exclude=False, inline_schema_functions=True
        )
    except Exception:  # the C++ inliner raises bare RuntimeErrors where it lacks a type
        return None
    return _adopted(op, list(inlined.graph.node), read)


def _adopted(op: Writer, nodes: Sequence[onnx.NodeProto], read: Sequence[str]) -> Sequence[str] | None:
    """Take over the nodes of a body under fresh names, its constants as those of the model."""
    names = {name: name for name in read}
    for node in nodes:
        if is_standard(node, op.node.op_type):
            return None
        if is_standard(node, "Constant") and not node.input:
            value = _value(node)
            if value is None:
                return None
            names[node.output[0]] = op.constant(value)
            continue
        twin = onnx.NodeProto()
        twin.CopyFrom(node)
        names |= {name: op.fresh(node.op_type) for name in node.output if name}
        rename_in(twin, names)
        op.nodes.append(twin)
    return [names.get(name, "") for name in op.node.output]


def _value(node: onnx.NodeProto) -> Any:
    if len(node.attribute) != 1:
        return None
    (entry,) = node.attribute
    value = helper.get_attribute_value(entry)
    if entry.name == "value":
        return numpy_helper.to_array(value)
    kinds = {"value_float": "float32", "value_floats": "float32", "value_int": "int64", "value_ints": "int64"}
    if entry.name not in kinds:
        return None
    return np.asarray(value, kinds[entry.name])
