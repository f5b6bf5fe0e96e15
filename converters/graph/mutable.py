"""A graph that is being rewritten: nodes, constants, inputs, outputs and known types.

Reads an `onnx.ModelProto` and writes one back. Constants are NumPy arrays. Subgraphs stay inside their
nodes; the outer names that they capture count as uses and are renamed with the rest. Sparse constants are
made dense. Refuses constants that are stored outside the model, and sparse ones that are larger than the budget.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.budget import current
from converters.errors import InvalidModel, one_line
from converters.graph.bounds import refuse_boundless
from converters.graph.inference import inferred_of
from converters.graph.unique import UniqueNames
from converters.types import Shape

# Larger constants are hidden from ONNX's C++ passes, which would copy them: no shape depends on them.
_LIGHT = 1024


class Draft:
    """A mutable ONNX graph. `types` holds what is known of each tensor (shape inference's ValueInfo)."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self.header = onnx.ModelProto()
        for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
            setattr(self.header, field, getattr(proto, field))
        self.header.metadata_props.extend(proto.metadata_props)
        self.opsets = {_domain(entry.domain): entry.version for entry in proto.opset_import}
        self.name = graph.name or "graph"
        self.nodes: list[onnx.NodeProto] = list(graph.node)
        self.constants: dict[str, np.ndarray] = {}
        for tensor in graph.initializer:
            self.constants[tensor.name] = constant_of(tensor)
        for sparse in graph.sparse_initializer:
            self.constants[sparse.values.name] = dense_of(sparse)
        self.inputs = tuple(info for info in graph.input if info.name not in self.constants)
        self.outputs = tuple(graph.output)
        self.types: dict[str, onnx.TypeProto] = {info.name: info.type for info in graph.value_info}
        self.unrolled = 0
        """How many nodes unrolled loops have brought so far."""
        self.settled = b""
        """The state in which no rewriting changes anything (settle.py)."""
        self.stated: set[tuple[str, int]] = set()
        """The axes, as (tensor, axis), whose size was stated besides shape inference."""
        self._names = UniqueNames({info.name for info in graph.input} | self.constants.keys())
        self._names.take(name for node in self.nodes for name in _written(node))

    def to_proto(self) -> onnx.ModelProto:
        """The model as a proto, with the types of every computed tensor."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.header)
        self._write(proto, self.constants)
        computed = {name for node in self.nodes for name in node.output} - {
            info.name for info in self.outputs
        }
        for name in sorted(computed & self.types.keys()):
            proto.graph.value_info.add(name=name, type=self.types[name])
        return proto

    def light_proto(self) -> onnx.ModelProto:
        """The model with its large constants as inputs: cheap to hand to ONNX's C++ passes."""
        proto = onnx.ModelProto()
        light = {name: array for name, array in self.constants.items() if array.size <= _LIGHT}
        self._write(proto, light)
        for name, array in self.constants.items():
            if name not in light:
                kind = helper.np_dtype_to_tensor_dtype(array.dtype)
                proto.graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        for name, known in self.types.items():
            # What computed a constant may have told less of it.
            if name not in self.constants:
                proto.graph.value_info.add(name=name, type=known)
        return proto

    def _write(self, proto: onnx.ModelProto, constants: Mapping[str, np.ndarray]) -> None:
        proto.ir_version = 11
        for domain, version in self.opsets.items():
            proto.opset_import.add(domain=domain, version=version)
        proto.graph.name = self.name
        proto.graph.node.extend(self.nodes)
        for name, array in constants.items():
            # One at a time: a list of all would hold every weight once more.
            proto.graph.initializer.append(numpy_helper.from_array(array, name))
        proto.graph.input.extend(self.inputs)
        proto.graph.output.extend(self.outputs)

    def adopt(self, proto: onnx.ModelProto) -> None:
        """Take over the nodes of a rewritten `light_proto`, keeping the large constants."""
        hidden = {name: array for name, array in self.constants.items() if array.size > _LIGHT}
        read = Draft(proto)
        self.nodes, self.opsets = read.nodes, read.opsets
        self.constants = read.constants | hidden
        self.inputs = tuple(info for info in read.inputs if info.name not in hidden)
        self.outputs, self.types = read.outputs, read.types
        self._names.take(read._names.taken)

    def infer_types(self) -> None:
        """Infer the type and shape of every tensor; known shapes are kept where inference has less to say."""
        proto = self.light_proto()
        for info in (*proto.graph.value_info, *proto.graph.output):
            _forget_invented_symbols(info.type)
        given = {info.name: info.type for info in proto.graph.input}
        for info in proto.graph.output:
            if info.name in given:
                # Inference reads the type of such a tensor from the output, and leaves all after it open.
                info.type.CopyFrom(given[info.name])
        for node in proto.graph.node:
            if is_standard(node, "GroupNormalization"):
                # The one op whose shape ONNX does not infer; it is that of its first input.
                node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
        try:
            inferred = inferred_of(proto)
        except onnx.shape_inference.InferenceError:
            # Types stored in the file may contradict its graph: the graph is right.
            del proto.graph.value_info[:]
            try:
                inferred = inferred_of(proto)
            except onnx.shape_inference.InferenceError as error:
                raise InvalidModel(
                    f"the shapes or types of the graph contradict one another ({one_line(error)}). Fix: export it "
                    "again until onnx.shape_inference.infer_shapes takes it"
                ) from error
        self.types = {info.name: info.type for info in inferred.graph.value_info}
        self.outputs = tuple(inferred.graph.output)
        for info in (*inferred.graph.value_info, *self.outputs):
            refuse_boundless(info)

    @property
    def inputs(self) -> tuple[onnx.ValueInfoProto, ...]:
        """The inputs of the graph that are no constants."""
        return self._inputs

    @inputs.setter
    def inputs(self, infos: Iterable[onnx.ValueInfoProto]) -> None:
        self._inputs = tuple(infos)
        self._input_types = {info.name: info.type for info in reversed(self._inputs)}

    @property
    def outputs(self) -> tuple[onnx.ValueInfoProto, ...]:
        """The outputs of the graph."""
        return self._outputs

    @outputs.setter
    def outputs(self, infos: Iterable[onnx.ValueInfoProto]) -> None:
        self._outputs = tuple(infos)
        self._output_types = {info.name: info.type for info in reversed(self._outputs)}
        self.output_names = frozenset(self._output_types)

    def shape(self, name: str) -> Shape | None:
        """The shape of a tensor: an int, a symbol or None (unknown) per axis; None without a rank."""
        if name in self.constants:
            return self.constants[name].shape
        known = self.type_of(name)
        return None if known is None else shape_of(known)

    def type_of(self, name: str) -> onnx.TypeProto | None:
        """What is known of a tensor that is no constant."""
        for known in (self.types, self._input_types, self._output_types):
            if name in known:
                return known[name]
        return None

    def typed(self, name: str) -> onnx.TypeProto | None:
        """The type of any tensor, constants included; None where nothing is known of it."""
        array = self.constants.get(name)
        if array is None:
            return self.type_of(name)
        return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    def uses(self) -> Counter[str]:
        """How often each tensor is read, graph outputs and captures of subgraphs included."""
        found = Counter(name for node in self.nodes for name in reads(node))
        found.update(self.output_names)
        return found

    def producers(self) -> dict[str, onnx.NodeProto]:
        """The node that computes each tensor."""
        return {name: node for node in self.nodes for name in node.output if name}

    def consumers(self) -> dict[str, list[onnx.NodeProto]]:
        """The nodes that read each tensor, in order; graph outputs do not count."""
        found: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(reads(node)):
                found.setdefault(name, []).append(node)
        return found

    def rename(self, names: Mapping[str, str]) -> None:
        """Rename tensors wherever they stand. Chains (a to b, b to c) are followed."""
        if not names:
            return
        final = {old: _follow(names, old) for old in names}
        for node in self.nodes:
            rename_in(node, final)
        for old, new in final.items():
            if old in self.types:
                self.types.setdefault(new, self.types[old])

    def remove(self, dead: Iterable[onnx.NodeProto]) -> None:
        """Take nodes out, by identity."""
        gone = {id(node) for node in dead}
        if gone:
            self.nodes = [node for node in self.nodes if id(node) not in gone]

    def replace(self, replacements: Mapping[int, Sequence[onnx.NodeProto]]) -> None:
        """Put nodes in the place of others; the key is the old node's id()."""
        if replacements:
            self.nodes = [new for node in self.nodes for new in replacements.get(id(node), (node,))]
            self._names.take(name for nodes in replacements.values() for n in nodes for name in _written(n))

    def remove_unused(self) -> None:
        """Take out nodes and constants that no output depends on, and the names of unread outputs."""
        alive = set(self.output_names)
        kept: list[onnx.NodeProto] = []
        for node in reversed(self.nodes):
            if alive.isdisjoint(name for name in node.output if name):
                continue
            _drop_unused_outputs(node, alive)
            kept.append(node)
            alive.update(reads(node))
        self.nodes = kept[::-1]
        self.constants = {name: array for name, array in self.constants.items() if name in alive}

    def fresh(self, stem: str) -> str:
        """A tensor name that the graph does not have yet, as close to `stem` as may be."""
        return self._names.fresh(stem)


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """The names that a node reads: its inputs, and what its subgraphs capture."""
    yield from (name for name in node.input if name)
    for body in subgraphs(node):
        local = {info.name for info in body.input} | {tensor.name for tensor in body.initializer}
        local |= {name for inner in body.node for name in inner.output}
        for inner in body.node:
            yield from (name for name in reads(inner) if name not in local)
        yield from (info.name for info in body.output if info.name not in local)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The bodies of an If, Loop or Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _written(node: onnx.NodeProto) -> Iterator[str]:
    yield from node.output
    for body in subgraphs(node):
        yield from (info.name for info in body.input)
        yield from (name for inner in body.node for name in _written(inner))


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


def shape_of(known: onnx.TypeProto) -> Shape | None:
    """The shape in a type: an int, a symbol or None (unknown) per axis; None where the rank is unknown."""
    kind = known.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(
        axis.dim_value if axis.HasField("dim_value") else (axis.dim_param or None) for axis in kind.shape.dim
    )


def constant_of(tensor: onnx.TensorProto) -> np.ndarray:
    """The array of a TensorProto."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise InvalidModel(
            f"the weights of {tensor.name!r} lie outside the model. Fix: load it from its file"
        )
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise InvalidModel(
            f"the initializer {tensor.name!r} is damaged ({one_line(error)}). Fix: export the model again"
        ) from error


def value_of(node: onnx.NodeProto) -> np.ndarray | None:
    """The array of a Constant node; None where it is of a kind that NumPy has no array for."""
    (entry,) = node.attribute
    value = helper.get_attribute_value(entry)
    if entry.name == "value":
        return constant_of(value)
    if entry.name == "sparse_value":
        return dense_of(value)
    if entry.name in ("value_int", "value_ints"):
        return np.asarray(value, np.int64)
    if entry.name in ("value_float", "value_floats"):
        return np.asarray(value, np.float32)
    if entry.name in ("value_string", "value_strings"):
        return np.asarray(value, object)
    return None


def dense_of(sparse: onnx.SparseTensorProto) -> np.ndarray:
    """The array of a SparseTensorProto, zeros included. Raises LimitExceeded where it is too large."""
    values, indices = constant_of(sparse.values), constant_of(sparse.indices)
    shape = tuple(sparse.dims)
    current().take_bytes(
        math.prod(shape) * values.itemsize, "writing out the zeros of a sparse constant", sparse.values.name
    )
    array = np.zeros(shape, values.dtype)
    try:
        array[np.unravel_index(indices, shape) if indices.ndim == 1 else tuple(indices.T)] = values
    except (IndexError, ValueError) as error:
        raise InvalidModel(
            f"the sparse constant {sparse.values.name!r} is damaged ({one_line(error)}). Fix: export the model again"
        ) from error
    return array


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def is_invented(size: int | str | None) -> bool:
    """Return whether an axis has no size: none is stated, or a symbol that shape inference invented (unk__7)."""
    return size is None or (isinstance(size, str) and size.startswith("unk__"))


def _forget_invented_symbols(known: onnx.TypeProto) -> None:
    """Remove invented symbols and sizes: shape inference would keep them where it can now say `batch`."""
    for axis in known.tensor_type.shape.dim if known.tensor_type.HasField("shape") else ():
        if is_invented(axis.dim_param):
            axis.ClearField("dim_param")
        if axis.dim_value < 0:
            # Some exporters state -1 for a size that is open.
            axis.ClearField("dim_value")


def _follow(names: Mapping[str, str], name: str) -> str:
    while name in names:
        name = names[name]
    return name


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


def _drop_unused_outputs(node: onnx.NodeProto, alive: set[str]) -> None:
    """Unname optional outputs nobody reads: a MaxPool without Indices stays on the runtime's fast path."""
    if not is_standard(node) or not onnx.defs.has(node.op_type):
        return
    formal = onnx.defs.get_schema(node.op_type).outputs
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    for index, name in enumerate(node.output):
        if name and name not in alive and index < len(formal) and formal[index].option == optional:
            node.output[index] = ""
    while node.output and not node.output[-1]:
        node.output.pop()
