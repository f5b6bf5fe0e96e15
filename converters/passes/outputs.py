"""Keep the inputs and outputs of a file that are tensors of numbers.

From a ModelProto to a copy whose outputs are numbers, with notes. A map of class names (ZipMap), a list or an optional
is replaced by the tensors in it. Text, and lists that a loop or a branch makes, are left out. Refuses a model
without any output of numbers, and inputs of text, lists or no stated rank.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx
from onnx import helper

from converters.errors import UnsupportedModel
from converters.graph.mutable import MutableGraph

_WRAPPERS = ("ZipMap", "SequenceConstruct", "SplitToSequence", "Optional", "Identity")
"""Ops that put tensors into a map, a list or an optional, and lose nothing of them."""

_FIX = "Fix: name a tensor of numbers, such as the logits, as an output of the file"


def keep_numbers(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """Return the model with outputs of numbers alone, and a note where others were left out.

    Raises UnsupportedModel where no output holds numbers.
    """
    given = {info.name: info for info in proto.graph.output}
    if not given:
        raise UnsupportedModel(f"expected an output of the model, found none. {_FIX}")
    strange = [name for name, info in given.items() if not _is_number(info.type)]
    if not strange:
        return proto, ()
    graph = MutableGraph(proto)
    graph.infer_types()
    found = {name: _inside(graph, name, given[name].type) for name in strange}
    names = list(dict.fromkeys(n for name in given for n in found.get(name, [name])))
    if not names:
        raise UnsupportedModel(f"no output is a tensor of numbers: {', '.join(map(repr, strange))}. {_FIX}")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    for name in names:
        taken = (tensors[name] for tensors in found.values() if name in tensors)
        copy.graph.output.add(name=name, type=given[name].type if name in given else next(taken))
    return copy, tuple(_note(name, given[name].type, list(found[name])) for name in strange)


def _is_number(known: onnx.TypeProto) -> bool:
    return known.HasField("tensor_type") and known.tensor_type.elem_type != onnx.TensorProto.STRING


def _inside(graph: MutableGraph, name: str, known: onnx.TypeProto) -> dict[str, onnx.TypeProto]:
    """Return the tensors of numbers, with their types, that a value is made of; none where they are not known."""
    if _is_number(known):
        return {name: graph.typed(name) or known}
    node = graph.producer(name)
    if node is None or node.op_type not in _WRAPPERS:
        return {}
    parts = node.input[:1] if node.op_type == "SplitToSequence" else node.input
    inner = _element(known, node.op_type)
    return {n: t for part in parts for n, t in _inside(graph, part, inner).items()}


def _element(known: onnx.TypeProto, op_type: str) -> onnx.TypeProto:
    """Return the type of what an op puts into a map, a list or an optional."""
    if op_type == "ZipMap":
        return helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    if known.HasField("sequence_type"):
        return known.sequence_type.elem_type
    return known.optional_type.elem_type if known.HasField("optional_type") else known


def _note(name: str, known: onnx.TypeProto, tensors: list[str]) -> str:
    kind = "text" if known.HasField("tensor_type") else "not a tensor"
    taken = f"; the graph returns {', '.join(map(repr, tensors))} in place of it" if tensors else ""
    return f"the output {name!r} is {kind} and is left out{taken}"


def refuse_inputs(proto: onnx.ModelProto) -> None:
    """Raise UnsupportedModel for an input that is not a tensor, or states no rank."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    for info in proto.graph.input:
        if info.name in stored:
            continue
        if not info.type.HasField("tensor_type"):
            kind = (info.type.WhichOneof("value") or "value without a type").removesuffix("_type")
            fix = "give each tensor in it an input"
            if kind == "map":
                fix = "export the model without the step that turns the map into a tensor"
            raise UnsupportedModel(
                f"expected tensors as inputs, found {info.name!r} of type {kind}. Fix: {fix}"
            )
        if not info.type.tensor_type.HasField("shape"):
            raise UnsupportedModel(
                f"expected a shape for the input {info.name!r}, found none. Fix: state its axes in the file, with "
                "symbols for free sizes"
            )


def refuse_text(proto: onnx.ModelProto, names: Collection[str] | None = None) -> None:
    """Raise UnsupportedModel where an input takes text. names: the inputs that are read, default all."""
    for info in proto.graph.input:
        text = info.type.tensor_type.elem_type == onnx.TensorProto.STRING
        if text and (names is None or info.name in names):
            raise UnsupportedModel(
                f"the input {info.name!r} is text, which has no gradient. Fix: cut the model after the step that turns "
                "text into numbers, and give these numbers as the input"
            )
