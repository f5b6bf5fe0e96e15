"""Damage a model: its bits, its fields, and extremes in the place of ordinary numbers.

Each mutation takes a ModelProto and a generator and changes the proto; `mutant` draws one to three of them, or damages
the bytes of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import numpy as np
import onnx

from tools.fuzz.seeds import networks, node_tests

Mutation = Callable[[onnx.ModelProto, np.random.Generator], None]

T = TypeVar("T")

INTEGERS = (0, 1, -1, -2, 3, 7, 64, 2**16, 2**20, 2**31 - 1, -(2**31), 2**31, 2**40, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-45, 3.4e38, -3.4e38, float("nan"), float("inf"), float("-inf"))
TEXTS = ("", "\x00", "\x1b[2J", "../../etc", "::error::x", "a" * 10_000, "$\\frac{", "💥", "y")
OF_ZOO = 0.2


def mutant(rng: np.random.Generator) -> bytes:
    """The bytes of a damaged model."""
    proto = _seed(rng)
    for _ in range(1 + int(rng.choice(3, p=(0.6, 0.25, 0.15)))):
        # Protobuf itself refuses some of what is drawn, and a damaged constant is no array.
        with suppress(ValueError, TypeError, KeyError):
            _drawn(MUTATIONS, rng)(proto, rng)
    data = proto.SerializeToString()
    return _damaged(data, rng) if rng.random() < 0.15 else data


def _seed(rng: np.random.Generator) -> onnx.ModelProto:
    """A network of the zoo, or a node test; half of those have some of their inputs as constants."""
    proto = onnx.ModelProto()
    if rng.random() < OF_ZOO:
        proto.CopyFrom(_drawn(networks(), rng))
        return proto
    case = _drawn(node_tests(), rng)
    proto.CopyFrom(case.model)
    if rng.random() < 0.5:
        for name, array in case.inputs.items():
            if array.dtype.kind in "iub" or rng.random() < 0.3:
                proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return proto


def _damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes with some of them changed, or the end cut off."""
    if rng.random() < 0.3:
        return data[: int(rng.integers(len(data)))]
    found = bytearray(data)
    for place in rng.integers(len(found), size=int(rng.integers(1, 9))):
        found[int(place)] ^= 1 << int(rng.integers(8))
    return bytes(found)


def _drawn(choices: Sequence[T], rng: np.random.Generator) -> T:
    return choices[int(rng.integers(len(choices)))]


def _integer(rng: np.random.Generator) -> int:
    return INTEGERS[int(rng.integers(len(INTEGERS)))]


def _text(rng: np.random.Generator) -> str:
    return TEXTS[int(rng.integers(len(TEXTS)))]


def change_attribute(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Put an extreme into an attribute, or make it another kind."""
    entries = [entry for node in _nodes(proto.graph) for entry in node.attribute]
    if not entries:
        return add_attribute(proto, rng)
    entry = _drawn(entries, rng)
    if rng.random() < 0.1:
        entry.type = int(rng.integers(0, 16))  # type: ignore[assignment]
    elif entry.ints:
        _change_list(entry.ints, rng)
    elif entry.type == onnx.AttributeProto.FLOAT:
        entry.f = FLOATS[int(rng.integers(len(FLOATS)))]
    elif entry.type == onnx.AttributeProto.STRING:
        entry.s = _text(rng).encode()
    else:
        entry.i = _integer(rng)
    return None


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of a graph, and of the graphs within it."""
    inner = [entry.g for node in graph.node for entry in node.attribute if entry.HasField("g")]
    return [*graph.node, *(node for body in inner for node in _nodes(body))]


def change_constant(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Put an extreme into a constant that keeps its sizes and its type."""
    values = [entry.t for node in _nodes(proto.graph) for entry in node.attribute if entry.HasField("t")]
    tensors = [
        tensor
        for tensor in (*proto.graph.initializer, *values)
        if tensor.data_type != onnx.TensorProto.STRING and not tensor.external_data
    ]
    if not tensors:
        return
    tensor = _drawn(tensors, rng)
    array = onnx.numpy_helper.to_array(tensor).copy()
    if array.size:
        number = _drawn(FLOATS, rng) if array.dtype.kind == "f" else _integer(rng)
        with np.errstate(all="ignore"):
            array.flat[int(rng.integers(array.size))] = np.asarray(number).astype(array.dtype)
        tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


def _change_list(numbers: list[int], rng: np.random.Generator) -> None:
    way = rng.random()
    if way < 0.6:
        numbers[int(rng.integers(len(numbers)))] = _integer(rng)
    elif way < 0.8:
        numbers.append(_integer(rng))
    else:
        del numbers[int(rng.integers(len(numbers)))]


def add_attribute(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Give a node an attribute of integers that its op knows, or one that may not be its own."""
    if not proto.graph.node:
        return
    node = _drawn(proto.graph.node, rng)
    known: dict[str, bool] = {}
    if rng.random() < 0.7 and onnx.defs.has(node.op_type):
        kinds = onnx.defs.OpSchema.AttrType
        attributes = onnx.defs.get_schema(node.op_type).attributes.values()
        known = {
            one.name: one.type == kinds.INTS for one in attributes if one.type in (kinds.INT, kinds.INTS)
        }
    name = _drawn([*known] or [*_OTHERS], rng)
    value = [_integer(rng)] * 2 if (known or _OTHERS)[name] else _integer(rng)
    kept = [entry for entry in node.attribute if entry.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])


# {attribute: whether it is a list}
_OTHERS = {
    **dict.fromkeys(("axis", "group", "to", "num_outputs"), False),
    **dict.fromkeys(("axes", "perm", "pads", "strides", "kernel_shape", "dilations"), True),
}


def drop_attribute(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Take an attribute away."""
    nodes = [node for node in proto.graph.node if node.attribute]
    if nodes:
        node = nodes[int(rng.integers(len(nodes)))]
        del node.attribute[int(rng.integers(len(node.attribute)))]


def change_shape(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """State another size of an input or output, or another rank."""
    infos = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    if not infos:
        return
    shape = infos[int(rng.integers(len(infos)))].type.tensor_type.shape
    if not shape.dim or rng.random() < 0.2:
        shape.dim.add(dim_value=_integer(rng))
    elif rng.random() < 0.2:
        del shape.dim[-1]
    else:
        shape.dim[int(rng.integers(len(shape.dim)))].dim_value = _integer(rng)


def change_type(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """State another element type."""
    infos = [*proto.graph.input, *proto.graph.output]
    if infos:
        infos[int(rng.integers(len(infos)))].type.tensor_type.elem_type = int(rng.integers(-1, 30))


def change_name(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Rename what a node reads or gives, or an input, an output or the node itself."""
    if not proto.graph.node:
        return
    node = proto.graph.node[int(rng.integers(len(proto.graph.node)))]
    way = int(rng.integers(5))
    if way < 2 and (names := (node.input, node.output)[way]):
        names[int(rng.integers(len(names)))] = _text(rng)
    elif way == 2:
        node.name = _text(rng)
    elif infos := (proto.graph.input, proto.graph.output)[way % 2]:
        infos[int(rng.integers(len(infos)))].name = _text(rng)


def change_op(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Make a node another op, or one of another domain."""
    if proto.graph.node:
        node = proto.graph.node[int(rng.integers(len(proto.graph.node)))]
        others = _drawn(node_tests(), rng).model.graph.node
        if rng.random() < 0.8 and others:
            node.op_type = others[0].op_type
        else:
            node.domain = _text(rng)


def change_nodes(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Repeat a node, or take one away, or change what it reads."""
    if not proto.graph.node:
        return
    index = int(rng.integers(len(proto.graph.node)))
    way = rng.random()
    if way < 0.4:
        proto.graph.node.add().CopyFrom(proto.graph.node[index])
    elif way < 0.7:
        del proto.graph.node[index]
    else:
        proto.graph.node[index].input.append(_text(rng))


def change_weights(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """Make an input a constant of extremes, or damage a constant's sizes, type or data."""
    if not proto.graph.initializer and proto.graph.input:
        info = proto.graph.input[int(rng.integers(len(proto.graph.input)))]
        integers = np.array([_integer(rng) for _ in range(int(rng.integers(1, 5)))], np.int64)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(integers, info.name))
    if proto.graph.initializer:
        tensor = proto.graph.initializer[int(rng.integers(len(proto.graph.initializer)))]
        way = rng.random()
        if way < 0.4:
            tensor.dims.append(_integer(rng))
        elif way < 0.6:
            tensor.data_type = int(rng.integers(-1, 30))
        elif way < 0.8:
            tensor.raw_data = rng.bytes(int(rng.integers(64)))
        else:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=_text(rng))


def change_header(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    """State other versions, or metadata that means something to onnxplain."""
    way = int(rng.integers(3))
    if way == 0 and proto.opset_import:
        proto.opset_import[0].version = _integer(rng)
    elif way == 1:
        proto.ir_version = _integer(rng)
    else:
        keys = ("onnxplain.canonical", "onnxplain.preprocessing", "onnxplain.class_names", "names")
        proto.metadata_props.add(key=keys[int(rng.integers(len(keys)))], value=_text(rng))


MUTATIONS: tuple[Mutation, ...] = (
    *[change_attribute] * 6,
    *[change_constant] * 6,
    *[add_attribute] * 3,
    drop_attribute,
    change_shape,
    change_type,
    change_name,
    change_op,
    change_nodes,
    change_weights,
    change_weights,
    change_header,
)
