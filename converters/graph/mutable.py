"""A graph that is being rewritten: nodes, constants, inputs, outputs, known types, producers and readers.

Reads an `onnx.ModelProto` and writes one back. Constants are NumPy arrays. Subgraphs stay inside their
nodes; the outer names that they capture count as uses and are renamed with the rest. Sparse constants are
made dense. Refuses constants that are stored outside the model, and sparse ones that are larger than the budget.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.errors import InvalidModel, one_line
from converters.graph.bounds import refuse_boundless
from converters.graph.inference import inferred_of
from converters.graph.links import Links
from converters.graph.nodes import drop_unused_outputs, is_standard, rename_in, written
from converters.graph.tensors import constant_of, dense_of, forget_invented_symbols, shape_of
from converters.graph.unique import UniqueNames
from converters.types import Shape

# Larger constants are hidden from ONNX's C++ passes, which would copy them: no shape depends on them.
_LIGHT = 1024


class MutableGraph:
    """A mutable ONNX graph. `types` holds what is known of each tensor (shape inference's ValueInfo)."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph = proto.graph
        self.header = onnx.ModelProto()
        for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
            setattr(self.header, field, getattr(proto, field))
        self.header.metadata_props.extend(proto.metadata_props)
        self.opsets = {_domain(entry.domain): entry.version for entry in proto.opset_import}
        self.name = graph.name or "graph"
        self.nodes = graph.node
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
        """The state in which no rewriting changes anything (fixed_point.py)."""
        self.stated: set[tuple[str, int]] = set()
        """The axes, as (tensor, axis), whose size was stated besides shape inference."""
        self._names = UniqueNames({info.name for info in graph.input} | self.constants.keys())
        self._names.take(name for node in self.nodes for name in written(node))

    def to_proto(self) -> onnx.ModelProto:
        """Return the model as a proto, with the types of every computed tensor."""
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
        """Return the model with its large constants as inputs, which is cheap to give to ONNX's C++ passes."""
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
        read = MutableGraph(proto)
        self.nodes, self.opsets = read.nodes, read.opsets
        self.constants = read.constants | hidden
        self.inputs = tuple(info for info in read.inputs if info.name not in hidden)
        self.outputs, self.types = read.outputs, read.types
        self._names.take(read._names.taken)

    def infer_types(self) -> None:
        """Infer the type and shape of every tensor; known shapes are kept where inference has less to say."""
        proto = self.light_proto()
        for info in (*proto.graph.value_info, *proto.graph.output):
            forget_invented_symbols(info.type)
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
    def nodes(self) -> list[onnx.NodeProto]:
        """The nodes in topological order: a copy, so that nodes may be removed while it is walked."""
        return list(self._nodes.values())

    @nodes.setter
    def nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        self._nodes = {id(node): node for node in nodes}
        self._links = Links(self._nodes.values())

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
        """Return the shape of a tensor: an int, a symbol or None (unknown) per axis; None without a rank."""
        if name in self.constants:
            return self.constants[name].shape
        known = self.type_of(name)
        return None if known is None else shape_of(known)

    def type_of(self, name: str) -> onnx.TypeProto | None:
        """Return the known type of a tensor that is not a constant."""
        for known in (self.types, self._input_types, self._output_types):
            if name in known:
                return known[name]
        return None

    def typed(self, name: str) -> onnx.TypeProto | None:
        """Return the type of any tensor, constants included; None where it is unknown."""
        array = self.constants.get(name)
        if array is None:
            return self.type_of(name)
        return helper.make_tensor_type_proto(helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a tensor; None for an input or a constant."""
        return self._links.producer(name)

    def readers(self, name: str) -> tuple[onnx.NodeProto, ...]:
        """Return the nodes that read a tensor, each once, captures of subgraphs included."""
        return self._links.readers(name)

    def use_count(self, name: str) -> int:
        """Return how often a tensor is read, graph outputs and captures of subgraphs included."""
        return self._links.count(name) + (name in self.output_names)

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """Return the one node that reads a tensor, once; None where more or less than that read it."""
        return self.readers(name)[0] if self.use_count(name) == self._links.count(name) == 1 else None

    def set_input(self, node: onnx.NodeProto, index: int, name: str) -> None:
        """Let a node read another tensor at an input."""
        while len(node.input) <= index:
            node.input.append("")
        node.input[index] = name
        self.relink(node)

    def set_inputs(self, node: onnx.NodeProto, names: Iterable[str]) -> None:
        """Let a node read other tensors."""
        node.input[:] = list(names)
        self.relink(node)

    def relink(self, node: onnx.NodeProto) -> None:
        """Note the inputs and outputs of a node that were changed. Call it after every such change."""
        self._links.remove(node)
        self._links.add(node)

    def rename(self, names: Mapping[str, str]) -> None:
        """Rename tensors wherever they occur. Chains (a to b, b to c) are followed."""
        final = {old: _follow(names, old) for old in names}
        touched: dict[int, onnx.NodeProto] = {}
        for old in final:
            producer = self.producer(old)
            nodes = self.readers(old) if producer is None else (producer, *self.readers(old))
            touched |= {id(node): node for node in nodes}
        for node in touched.values():
            rename_in(node, final)
            self.relink(node)
        for old, new in final.items():
            if old in self.types:
                self.types.setdefault(new, self.types[old])

    def remove(self, dead: Iterable[onnx.NodeProto]) -> None:
        """Remove nodes."""
        for node in dead:
            self._links.remove(node)
            del self._nodes[id(node)]

    def replace(self, replacements: Mapping[int, Sequence[onnx.NodeProto]]) -> None:
        """Put nodes in the place of others, which they may include; the key is the id() of the old node."""
        if not replacements:
            return
        for old in replacements:
            self._links.remove(self._nodes[old])
        new = [node for nodes in replacements.values() for node in nodes]
        for node in new:
            self._links.add(node)
        self._names.take(name for node in new for name in written(node))
        nodes = [new for node in self.nodes for new in replacements.get(id(node), (node,))]
        self._nodes = {id(node): node for node in nodes}

    def remove_unused(self) -> None:
        """Remove nodes and constants that no output depends on, and the names of unread outputs."""
        for node in reversed(self.nodes):
            unread = [name for name in node.output if name and not self.use_count(name)]
            if len(unread) == sum(map(bool, node.output)):
                self.remove([node])
            elif len(node.output) > 1:
                drop_unused_outputs(node, unread)
                self.relink(node)
        self.constants = {name: array for name, array in self.constants.items() if self.use_count(name)}

    @property
    def taken(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._names.taken)

    def take(self, names: Iterable[str]) -> None:
        """Keep names from being given to new tensors."""
        self._names.take(names)

    def fresh(self, stem: str) -> str:
        """Return a tensor name that the graph does not have yet: the stem, or the stem and a number."""
        return self._names.fresh(stem)


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _follow(names: Mapping[str, str], name: str) -> str:
    while name in names:
        name = names[name]
    return name
