"""Validate the fields of a file once, on reading: what ONNX's checker leaves open and every later step relies on.

Reads a ModelProto; raises InvalidModel, which names the field. After it, versions are in range, every attribute has the
type and the value that it states, integers are in range, texts are UTF-8, every constant has as much data as its sizes
ask for, and no loop of a fixed trip count runs forever.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import helper, numpy_helper

from converters.errors import InvalidModel, one_line
from converters.graph.bounds import refuse_long_vector
from converters.graph.expansion import MICROSOFT
from converters.graph.nodes import subgraphs
from converters.graph.opset import all_nodes
from converters.validation.endless import Constants, refuse_endless, small_constants
from converters.validation.ranges import validate_constants, validate_integers

_FIX = "Fix: export the model again until onnx.checker.check_model takes it"
_LARGEST_VERSION = 2**31 - 1
# {type of an attribute: the field that holds its value}
_FIELDS = {
    onnx.AttributeProto.FLOAT: "f",
    onnx.AttributeProto.INT: "i",
    onnx.AttributeProto.STRING: "s",
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.GRAPH: "g",
    onnx.AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    onnx.AttributeProto.TYPE_PROTO: "tp",
    onnx.AttributeProto.FLOATS: "floats",
    onnx.AttributeProto.INTS: "ints",
    onnx.AttributeProto.STRINGS: "strings",
    onnx.AttributeProto.TENSORS: "tensors",
    onnx.AttributeProto.GRAPHS: "graphs",
    onnx.AttributeProto.SPARSE_TENSORS: "sparse_tensors",
    onnx.AttributeProto.TYPE_PROTOS: "type_protos",
}
_Words = dict[str, tuple[str, ...]]
_AUTO_PAD: _Words = {"auto_pad": ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")}
_RESIZING: _Words = {
    "mode": ("nearest", "linear", "bilinear", "cubic"),
    "coordinate_transformation_mode": (
        "half_pixel",
        "half_pixel_symmetric",
        "pytorch_half_pixel",
        "align_corners",
        "asymmetric",
        "tf_crop_and_resize",
        "tf_half_pixel_for_nn",
    ),
    "nearest_mode": ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil", "simple"),
    "keep_aspect_ratio_policy": ("stretch", "not_larger", "not_smaller"),
}
_DIRECTION: _Words = {"direction": ("forward", "reverse", "bidirectional")}
_UPDATE: _Words = {"reduction": ("none", "add", "mul", "max", "min")}
_LOSS: _Words = {"reduction": ("none", "sum", "mean")}
# {op: {attribute: the words that the standard has for it}}
_WORDS: dict[str, _Words] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "ConvInteger", "QLinearConv"), _AUTO_PAD),
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), _AUTO_PAD),
    **dict.fromkeys(("Resize", "Upsample"), _RESIZING),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _DIRECTION),
    **dict.fromkeys(("ScatterElements", "ScatterND"), _UPDATE),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), _LOSS),
    "Pad": {"mode": ("constant", "reflect", "edge", "wrap")},
    "GridSample": {
        "mode": ("linear", "nearest", "cubic", "bilinear", "bicubic"),
        "padding_mode": ("zeros", "border", "reflection"),
    },
    "RoiAlign": {
        "mode": ("avg", "max"),
        "coordinate_transformation_mode": ("half_pixel", "output_half_pixel"),
    },
    "DepthToSpace": {"mode": ("DCR", "CRD")},
    "Gelu": {"approximate": ("none", "tanh")},
    "BitShift": {"direction": ("LEFT", "RIGHT")},
}
_TERM = r"[A-Za-z]*(\.\.\.)?[A-Za-z]*"
_EQUATION = re.compile(rf"{_TERM}(,{_TERM})*(->{_TERM})?")
_SINGLE = frozenset({"f", "i", "s", "t", "g", "sparse_tensor", "tp"})


def validate(proto: onnx.ModelProto) -> None:
    """Raise InvalidModel for the first field that does not hold what it must."""
    validate_texts(proto)
    for entry in proto.opset_import:
        if not 1 <= entry.version <= _LARGEST_VERSION:
            raise InvalidModel(
                f"expected an opset version of {entry.domain or 'ai.onnx'!r} from 1 on, got {entry.version}. {_FIX}"
            )
    for graph in _graphs(proto.graph):
        for info in (*graph.input, *graph.output, *graph.value_info):
            _validate_type(info.type, f"the type of {info.name!r}")
            refuse_long_vector(info)
    for node in all_nodes([*proto.graph.node, *(node for body in proto.functions for node in body.node)]):
        _validate_node(node)
    for graph in _graphs(proto.graph):
        for tensor in graph.initializer:
            _validate_tensor(tensor)
    _validate_defaults(proto.graph)
    _validate_known(proto.graph, {}, 1)


def _validate_defaults(graph: onnx.GraphProto) -> None:
    """Check that an input which is a constant, too, states the sizes of the constant."""
    sizes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    for info in graph.input:
        if info.name not in sizes or not info.type.tensor_type.HasField("shape"):
            continue
        stated = [d.dim_value if d.HasField("dim_value") else None for d in info.type.tensor_type.shape.dim]
        held = sizes[info.name]
        fits = len(stated) == len(held) and all(
            a is None or a == b for a, b in zip(stated, held, strict=True)
        )
        if not fits:
            raise InvalidModel(
                f"expected the constant {info.name!r} to be of the shape {stated} of the input, got {held}. {_FIX}"
            )


def _validate_known(graph: onnx.GraphProto, outer: Constants, trips: int) -> None:
    """Check what the constants of a graph, and those around it, make of its nodes. trips: those of the loops around."""
    constants = {**outer, **small_constants(graph)}
    for node in graph.node:
        if node.domain in ("", "ai.onnx"):
            validate_constants(node, constants, _place(node))
            inner = refuse_endless(node, constants, trips, _place(node))
            for body in subgraphs(node):
                _validate_known(body, constants, inner)


def _place(node: onnx.NodeProto) -> str:
    return f"node {node.name or ', '.join(node.output)!r} ({node.op_type})"


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph, and the bodies of its loops and branches."""
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from _graphs(body)


def validate_texts(proto: onnx.ModelProto) -> None:
    """Raise InvalidModel for the first text that is not UTF-8: names, notes and metadata, those of bodies included."""
    for place, text in _texts(proto, "model"):
        # Protobuf gives bytes for such a text, and refuses to store it in another message.
        if not isinstance(text, str):
            raise InvalidModel(f"the field {place} is not UTF-8 text, got {text[:60]!r}. {_FIX}")


def _texts(message: Any, place: str) -> Iterator[tuple[str, str | bytes]]:
    """Every text in a protocol buffer, with the path of its field; the data of tensors is not read."""
    if isinstance(message, onnx.TensorProto):
        # To list the fields would copy the weights.
        yield f"{place}.name", message.name
        yield f"{place}.doc_string", message.doc_string
        for part in (*message.external_data, *message.metadata_props):
            yield from _texts(part, place)
        return
    for field, value in message.ListFields():
        within = f"{place}.{field.name}"
        if field.type == field.TYPE_STRING:
            yield from ((within, text) for text in ([value] if isinstance(value, (str, bytes)) else value))
        elif field.type == field.TYPE_MESSAGE:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _texts(part, within)


def _validate_type(kind: onnx.TypeProto, place: str) -> None:
    """Check the type of the elements, those of sequences and optional values included."""
    known = onnx.TensorProto.DataType.values()
    for field in ("tensor_type", "sparse_tensor_type"):
        if kind.HasField(field) and getattr(kind, field).elem_type not in known:
            raise InvalidModel(
                f"{place}: the unknown type of elements {getattr(kind, field).elem_type}. {_FIX}"
            )
    if kind.HasField("map_type") and kind.map_type.key_type not in known:
        raise InvalidModel(f"{place}: the unknown type of keys {kind.map_type.key_type}. {_FIX}")
    for inner in ("sequence_type", "optional_type"):
        if kind.HasField(inner):
            _validate_type(getattr(kind, inner).elem_type, place)
    if kind.HasField("map_type"):
        _validate_type(kind.map_type.value_type, place)


def _validate_node(node: onnx.NodeProto) -> None:
    place = _place(node)
    for entry in node.attribute:
        field = _FIELDS.get(entry.type)
        if entry.ref_attr_name:
            continue
        if field is None:
            raise InvalidModel(
                f"{place}: the attribute {entry.name!r} has the unknown type {entry.type}. {_FIX}"
            )
        if field in _SINGLE and field not in ("f", "i", "s") and not entry.HasField(field):
            raise InvalidModel(f"{place}: the attribute {entry.name!r} has no value of its type. {_FIX}")
        for text in [entry.s] if field == "s" else entry.strings if field == "strings" else []:
            _validate_text(text, f"{place}: the attribute {entry.name!r}")
        for tensor in [entry.t] if field == "t" else entry.tensors if field == "tensors" else []:
            _validate_tensor(tensor)
    if node.domain in ("", "ai.onnx", MICROSOFT):
        validate_integers(node, place)
    allowed: _Words = _WORDS.get(node.op_type, {}) if node.domain in ("", "ai.onnx") else {}
    for entry in node.attribute:
        word = entry.s.decode() if entry.type == onnx.AttributeProto.STRING else None
        if word is not None and word not in allowed.get(entry.name, (word,)):
            raise InvalidModel(
                f"{place}: expected {entry.name!r} to be one of {', '.join(allowed[entry.name])}, got {word!r}. {_FIX}"
            )
    if node.op_type == "Einsum":
        _validate_equation(node, place)
    if node.op_type == "Constant" and node.domain in ("", "ai.onnx") and len(node.attribute) != 1:
        raise InvalidModel(f"{place}: expected one value, got {len(node.attribute)}. {_FIX}")


def _validate_equation(node: onnx.NodeProto, place: str) -> None:
    """Check that the equation of an Einsum has letters for each of its inputs."""
    for entry in node.attribute:
        equation = entry.s.decode() if entry.name == "equation" else None
        if equation is None:
            continue
        terms = equation.partition("->")[0].split(",")
        if len(terms) != len(node.input) or not _EQUATION.fullmatch(equation.replace(" ", "")):
            raise InvalidModel(
                f"{place}: expected an equation with letters for each of {len(node.input)} inputs, got "
                f"{equation[:60]!r}. {_FIX}"
            )


def _validate_text(text: bytes, place: str) -> None:
    try:
        text.decode()
    except UnicodeDecodeError as error:
        raise InvalidModel(f"{place} is not UTF-8 text. {_FIX}") from error


def _validate_tensor(tensor: onnx.TensorProto) -> None:
    """Check that a tensor has the data that its type and sizes ask for."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return
    try:
        if tensor.HasField("raw_data"):
            if tensor.data_type == onnx.TensorProto.STRING:
                raise ValueError("texts as bytes")
            # The bytes are counted; to make an array of them would copy the weights.
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            needed = _product(tensor.dims) * dtype.itemsize
            if tensor.data_type in _PACKED:
                return
            if len(tensor.raw_data) != needed:
                raise ValueError(f"{len(tensor.raw_data)} bytes of data for {needed}")
        else:
            numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InvalidModel(f"the constant {tensor.name!r} is damaged ({one_line(error)}). {_FIX}") from error


def _product(sizes: list[int]) -> int:
    product = 1
    for size in sizes:
        if size < 0:
            raise ValueError(f"a size of {size}")
        product *= size
    return product


_PACKED = frozenset(
    getattr(onnx.TensorProto, name)
    for name in ("INT4", "UINT4", "FLOAT4E2M1", "INT2", "UINT2")
    if hasattr(onnx.TensorProto, name)
)
"""Types of which several numbers share a byte."""
