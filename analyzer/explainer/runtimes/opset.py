"""Convert a model to another opset, one opset at a time, with the ops in the bodies of If, Loop and Scan.

Reads a ModelProto of opset 17 or later, and returns another one with the IR version that belongs to its opset. At
every step down, an op that is new in the opset is expanded through its standard body, a changed op is rewritten by its
rule (opset_rules.py), and any other op must be valid under its older schema. An op without an older form of the same
values raises ExportError, which names the node. ONNX's own converter fails on ConstantOfShape and Gelu.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from analyzer.errors import ExportError
from analyzer.explainer.runtimes.bodies import standard_body
from analyzer.explainer.runtimes.mutable import MutableModel, Writer, all_nodes, opset_of
from analyzer.explainer.runtimes.opset_rules import NEW_FORMS, RULES, UPWARD
from converters.errors import one_line
from converters.graph.nodes import is_standard

OLDEST = 17
"""The oldest opset that models are lowered to."""
# Nodes have metadata from here on.
_IR_OF_METADATA = 10
# Between older opsets, meanings changed: axes of reductions became inputs, modes of GridSample were renamed, ….
_RAISED_FROM = 21
_BODIES = 8


def at_opset(proto: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model at an opset, 17 or later, with the same values; the model itself is not changed.

    Raises ExportError, which names the node and its op, where a node has no form with the same values there.
    """
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= opset <= newest:
        raise ExportError(
            f"expected an opset from {OLDEST} to {newest}, got {opset}. Fix: choose one of these"
        )
    model = MutableModel(proto)
    version = model.opset
    if version > newest:
        raise ExportError(
            f"expected a model of opset {newest} or earlier, got {version}. Fix: install a newer onnx"
        )
    if version < opset and version < _RAISED_FROM:
        raise ExportError(
            f"expected a model of opset {_RAISED_FROM} or later to raise it to {opset}, got {version}. "
            f"Fix: export it at opset {opset}"
        )
    while model.opset > opset:
        _lower(model, model.opset)
    while model.opset < opset:
        _raise(model, model.opset + 1)
    lowered = model.finished()
    lowered.ir_version = helper.find_min_ir_version_for(list(lowered.opset_import))
    if lowered.ir_version < _IR_OF_METADATA:
        _forget_metadata(lowered.graph)
    checked(lowered)
    return lowered


def checked(proto: onnx.ModelProto) -> None:
    """Run ONNX's checker with full and strict shape inference. Raises ExportError."""
    try:
        onnx.checker.check_model(MutableModel(proto).light(), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(
            f"the explainer at opset {opset_of(proto)} fails ONNX's checker ({one_line(error)}). Fix: choose opset 21"
        ) from error


def _lower(model: MutableModel, version: int) -> None:
    """Bring a model from this opset to the one before."""

    def rule(op: Writer, node: onnx.NodeProto) -> str | Sequence[str] | None:
        if not is_standard(node) or _since(node.op_type, version) != version:
            return None
        rewritten = RULES.get((node.op_type, version))
        results = rewritten(op) if rewritten is not None else None
        if results is None:
            _relabel(op, node, version)
        return results

    if any(
        is_standard(node) and _since(node.op_type, version) == version
        for node in all_nodes(model.proto.graph)
    ):
        _expand_new(model, version)
        model.infer()
        model.rewrite(rule)
    model.opset = version - 1


def _raise(model: MutableModel, version: int) -> None:
    """Bring a model to this opset from the one before: later schemas take all that earlier ones took, but for types."""

    def rule(op: Writer, node: onnx.NodeProto) -> None:
        if is_standard(node) and _since(node.op_type, version) == version:
            why = UPWARD.get((node.op_type, version)) or _misfit(op, node, _schema(node.op_type, version))
            if why:
                raise op.refuse(f"{why} at opset {version}", f"choose opset {version - 1}")

    model.infer()
    model.rewrite(rule)
    model.opset = version


def _expand_new(model: MutableModel, version: int) -> None:
    """Replace the ops that the opset before does not have, or means otherwise, by their standard bodies."""

    def rule(op: Writer, node: onnx.NodeProto) -> Sequence[str] | None:
        if not is_standard(node) or not _lacks_older_form(node.op_type, version):
            return None
        results = None if node.op_type == "AffineGrid" else standard_body(op)
        if results is None:
            raise op.refuse(
                f"has no form with the same values before opset {version}", f"choose opset {version} or later"
            )
        return results

    for _ in range(_BODIES):
        if not any(
            is_standard(node) and _lacks_older_form(node.op_type, version)
            for node in all_nodes(model.proto.graph)
        ):
            return
        model.infer()
        model.rewrite(rule)
    raise ExportError(
        f"the ops of opset {version} cannot be written out. Fix: choose opset {version} or later"
    )


def _lacks_older_form(op_type: str, version: int) -> bool:
    if (op_type, version) in RULES or _since(op_type, version) != version:
        return False
    return _since(op_type, version - 1) is None or (op_type, version) in NEW_FORMS


def _relabel(op: Writer, node: onnx.NodeProto, version: int) -> None:
    """Make a node one of the opset before, where only attributes at their defaults have to go."""
    older, newer = _schema(node.op_type, version - 1), _schema(node.op_type, version)
    for entry in list(node.attribute):
        if entry.name in older.attributes:
            continue
        if entry != newer.attributes[entry.name].default_value:
            value = helper.get_attribute_value(entry)
            raise op.refuse(
                f"has the attribute {entry.name}={value!r}, which opset {version - 1} does not have",
                f"choose opset {version} or later",
            )
        node.attribute.remove(entry)
    why = _misfit(op, node, older)
    if why:
        raise op.refuse(f"{why} at opset {version - 1}", f"choose opset {version} or later")


def _misfit(op: Writer, node: onnx.NodeProto, schema: onnx.defs.OpSchema) -> str:
    """Return what keeps a node from being valid under a schema: a number of tensors, or a type; "" for nothing."""
    allowed = {entry.type_param_str: set(entry.allowed_type_strs) for entry in schema.type_constraints}
    bound: dict[str, str] = {}
    sides = (("inputs", node.input, schema.inputs), ("outputs", node.output, schema.outputs))
    for side, names, formal in sides:
        variadic = bool(formal) and formal[-1].option == onnx.defs.OpSchema.FormalParameterOption.Variadic
        if len(names) > len(formal) and not variadic:
            return f"has {len(names)} {side}, of which only {len(formal)} exist"
        for position, name in enumerate(names):
            known = op.type_of(name) if name else None
            if known is None:
                continue
            text, one = type_text(known), formal[min(position, len(formal) - 1)]
            if not text:
                continue
            if text not in allowed.get(one.type_str, {one.type_str}):
                return f"takes no {text} as {one.name}"
            if (
                one.type_str in allowed
                and one.is_homogeneous
                and bound.setdefault(one.type_str, text) != text
            ):
                return f"takes no {text} as {one.name} together with {bound[one.type_str]}"
    return ""


def type_text(known: onnx.TypeProto) -> str:
    """Return a type as schemas spell it, such as tensor(float); "" where it is not known to the end."""
    kind = known.WhichOneof("value")
    if kind == "tensor_type":
        element = known.tensor_type.elem_type
        return f"tensor({onnx.TensorProto.DataType.Name(element).lower()})" if element else ""
    if kind in ("sequence_type", "optional_type"):
        inner = type_text(getattr(known, kind).elem_type)
        return f"{'seq' if kind == 'sequence_type' else 'optional'}({inner})" if inner else ""
    return ""


def _since(op_type: str, version: int) -> int | None:
    try:
        return int(_schema(op_type, version).since_version)
    except onnx.defs.SchemaError:
        return None


def _schema(op_type: str, version: int) -> onnx.defs.OpSchema:
    return onnx.defs.get_schema(op_type, version)


def _forget_metadata(graph: onnx.GraphProto) -> None:
    """Remove what an older format has no field for."""
    del graph.metadata_props[:]
    for info in (*graph.input, *graph.output, *graph.value_info):
        del info.metadata_props[:]
    for tensor in graph.initializer:
        del tensor.metadata_props[:]
    for node in all_nodes(graph):
        del node.metadata_props[:]
