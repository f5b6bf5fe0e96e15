"""A finished ONNX model that is being rewritten node by node, inside the bodies of If, Loop and Scan, too.

Reads a ModelProto and writes another one. Large initializers stay in the given model until the end and are copied once.
A rule looks at one node through a Writer, which knows the types, shapes and small constants around it, and returns the
tensors that take the place of the node's outputs.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.errors import ExportError
from analyzer.explainer.runtimes.ranks import typed, types_of
from converters.errors import one_line
from converters.graph.builder import NodeBuilder
from converters.graph.nodes import is_standard, subgraphs, written
from converters.graph.tensors import shape_of, value_of
from converters.graph.unique import UniqueNames
from converters.types import Shape

# Larger initializers are given to ONNX's C++ passes as inputs: no shape depends on their values.
_LIGHT = 1024
_HEAD = ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string")

NodeRule = Callable[["Writer", onnx.NodeProto], "str | Sequence[str] | None"]
KnownTypes = ChainMap[str, onnx.TypeProto]
KnownValues = ChainMap[str, "onnx.TensorProto | onnx.NodeProto"]


class MutableModel:
    """A model without its large initializers, which `heavy` maps from their names."""

    def __init__(self, source: onnx.ModelProto) -> None:
        self.proto = onnx.ModelProto()
        for field in _HEAD:
            if source.HasField(field):
                setattr(self.proto, field, getattr(source, field))
        self.proto.opset_import.extend(source.opset_import)
        self.proto.metadata_props.extend(source.metadata_props)
        if source.functions:
            raise ExportError(
                f"expected a model of plain ONNX ops, got a model with {len(source.functions)} local functions. "
                "Fix: inline them with onnx.inliner.inline_local_functions"
            )
        graph = self.proto.graph
        graph.name, graph.doc_string = source.graph.name, source.graph.doc_string
        for part in ("node", "input", "output", "value_info", "metadata_props", "sparse_initializer"):
            getattr(graph, part).extend(getattr(source.graph, part))
        self.heavy: dict[str, onnx.TensorProto] = {}
        for tensor in source.graph.initializer:
            if is_heavy(tensor):
                self.heavy[tensor.name] = tensor
            else:
                graph.initializer.append(tensor)
        self._names = UniqueNames({info.name for info in graph.input} | self.heavy.keys())
        self._names.take(tensor.name for tensor in graph.initializer)
        self._names.take(name for node in graph.node for name in written(node))
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._typed: onnx.GraphProto | None = None

    @property
    def opset(self) -> int:
        """The opset of ai.onnx."""
        return opset_of(self.proto)

    @opset.setter
    def opset(self, version: int) -> None:
        for entry in self.proto.opset_import:
            if entry.domain in ("", "ai.onnx"):
                entry.version = version

    def fresh(self, stem: str) -> str:
        """Return a name that no tensor has yet."""
        return self._names.fresh(stem)

    def constant(self, array: np.ndarray) -> str:
        """Enter a constant, which all equal ones share."""
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.fresh("constant")
            self.proto.graph.initializer.append(numpy_helper.from_array(array, self._shared[key]))
        return self._shared[key]

    def take_nodes(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Replace the nodes of the model."""
        copies = [_copied(node) for node in nodes]
        del self.proto.graph.node[:]
        self.proto.graph.node.extend(copies)
        self._names.take(name for node in copies for name in written(node))
        self._typed = None

    def replace_initializer(self, name: str, tensor: onnx.TensorProto) -> None:
        """Replace an initializer by another one, which has another name."""
        if self.heavy.pop(name, None) is not None:
            self.heavy[tensor.name] = tensor
            return
        graph = self.proto.graph
        kept = [one for one in graph.initializer if one.name != name]
        del graph.initializer[:]
        graph.initializer.extend([*kept, tensor])

    def light(self) -> onnx.ModelProto:
        """Return the model with its large initializers as inputs."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        given = {info.name for info in proto.graph.input}
        for name, tensor in self.heavy.items():
            if name not in given:
                proto.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        return proto

    def infer(self) -> None:
        """Infer the types of all tensors. Raises ExportError for a graph whose types contradict one another."""
        proto = self.light()
        for graph in _graphs(proto.graph):
            for node in graph.node:
                if is_standard(node, "GroupNormalization"):
                    # The one op whose shape ONNX does not infer; it is that of its first input.
                    node.CopyFrom(helper.make_node("Identity", node.input[:1], node.output))
        try:
            self._typed = typed(proto)
        except onnx.shape_inference.InferenceError as error:
            raise ExportError(
                f"the types of the explainer's graph contradict one another ({one_line(error)}). Fix: check the model "
                "with onnx.checker.check_model(model, full_check=True)"
            ) from error

    def rewrite(self, rule: NodeRule) -> bool:
        """Apply a rule to every node. Returns whether it replaced any. Call `infer` before, for types."""
        types = types_of(self._typed) if self._typed is not None else {}
        values: dict[str, Any] = {tensor.name: tensor for tensor in self.proto.graph.initializer}
        fed = {info.name for info in self.proto.graph.input}
        # An initializer that may be fed is not constant.
        values = {name: tensor for name, tensor in values.items() if name not in fed}
        return self._rewrite(self.proto.graph, self._typed, ChainMap(types), ChainMap(values), rule)

    def _rewrite(
        self,
        graph: onnx.GraphProto,
        known: onnx.GraphProto | None,
        scope: KnownTypes,
        values: KnownValues,
        rule: NodeRule,
    ) -> bool:
        changed, nodes = False, []
        for position, node in enumerate(graph.node):
            if is_standard(node, "Constant"):
                values[node.output[0]] = node
            inner = known.node[position] if known is not None else None
            twins = list(subgraphs(inner)) if inner is not None else []
            for index, body in enumerate(subgraphs(node)):
                twin = twins[index] if index < len(twins) else None
                local_types = types_of(twin) if twin is not None else {}
                local = {tensor.name: tensor for tensor in body.initializer}
                changed |= self._rewrite(
                    body, twin, scope.new_child(local_types), values.new_child(local), rule
                )
            writer = Writer(self, node, scope, values)
            results = rule(writer, node)
            if results is None:
                nodes.append(node)
                continue
            changed = True
            nodes += writer.under_own_names((results,) if isinstance(results, str) else results)
        if changed:
            copies = [_copied(node) for node in nodes]
            del graph.node[:]
            graph.node.extend(copies)
            self._typed = None if graph is self.proto.graph else self._typed
        return changed

    def finished(self) -> onnx.ModelProto:
        """Return the model with all that its nodes read; initializers that nothing reads any more are left out."""
        proto = onnx.ModelProto()
        proto.CopyFrom(self.proto)
        graph = proto.graph
        drop_unread(graph)
        made = {name for node in graph.node for name in written(node)} - {info.name for info in graph.output}
        kept = [info for info in graph.value_info if info.name in made]
        del graph.value_info[:]
        graph.value_info.extend(kept)
        read = set(read_in(graph)) | {info.name for info in graph.input}
        small = [tensor for tensor in self.proto.graph.initializer if tensor.name in read]
        del graph.initializer[:]
        for tensor in (*small, *(tensor for name, tensor in self.heavy.items() if name in read)):
            graph.initializer.append(tensor)
        return proto


class Writer(NodeBuilder[str]):
    """Writes the nodes that replace one node. Tensors are names; numbers take the type of the first tensor."""

    def __init__(
        self, model: MutableModel, node: onnx.NodeProto, scope: KnownTypes, values: KnownValues
    ) -> None:
        super().__init__()
        self.model = model
        self.node = node
        self._scope = scope
        self._values = values

    def is_tensor(self, value: Any) -> bool:
        """Return whether an argument is the name of a tensor."""
        return isinstance(value, str)

    def like(self, arguments: Sequence[Any]) -> str | None:
        """Return the first tensor among the arguments."""
        return next((argument for argument in arguments if isinstance(argument, str)), None)

    def number(self, value: float, like: Any) -> str:
        """Return a Python number in the type of the tensor `like`."""
        known = self.dtype(like) if like is not None else None
        if known is None:
            return str(self.CastLike(self.constant(np.asarray(value, np.float32)), like))
        return self.constant(np.asarray(value, known))

    def constant(self, array: np.ndarray) -> str:
        """Enter a constant into the model."""
        return self.model.constant(array)

    def fresh(self, stem: str) -> str:
        """Return a name that the model does not have yet."""
        return self.model.fresh(f"{next(name for name in self.node.output if name)}.{stem}")

    def name_of(self, tensor: str) -> str:
        """Return the name itself."""
        return tensor

    def results(
        self, op_type: str, inputs: Sequence[str | None], names: Sequence[str], attributes: dict[str, Any]
    ) -> Sequence[str]:
        """Return the names of the outputs."""
        return names

    def type_of(self, name: str) -> onnx.TypeProto | None:
        """Return the type of a tensor, None where it is unknown."""
        return self._scope.get(name)

    def element(self, name: str) -> int:
        """Return the element type of a tensor as ONNX numbers them, 0 where it is unknown."""
        known = self.type_of(name)
        return known.tensor_type.elem_type if known is not None else 0

    def dtype(self, name: str) -> np.dtype[Any] | None:
        """Return the element type of a tensor, None where it is unknown."""
        element = self.element(name)
        return np.dtype(helper.tensor_dtype_to_np_dtype(element)) if element else None

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a tensor, None without a known rank."""
        known = self.type_of(name)
        return None if known is None else shape_of(known)

    def rank(self, name: str) -> int:
        """Return the number of axes. Raises ExportError where it is unknown."""
        shape = self.shape(name)
        if shape is None:
            raise self.refuse(
                f"reads {name!r}, whose number of axes is unknown", "state the shape of its inputs"
            )
        return len(shape)

    def size(self, name: str, axis: int) -> int | None:
        """Return the size of one axis, None where it is unknown."""
        size = self.shape(name)[axis] if self.shape(name) is not None else None  # type: ignore[index]
        return size if isinstance(size, int) else None

    def value(self, name: str) -> np.ndarray | None:
        """Return the value of a constant, None for a tensor that is computed, fed, or large."""
        found = self._values.get(name)
        if found is None:
            return None
        return value_of(found) if isinstance(found, onnx.NodeProto) else numpy_helper.to_array(found)

    def attribute(self, name: str) -> Any:
        """Return an attribute of the node, its default where it is not stated; None without one."""
        for entry in self.node.attribute:
            if entry.name == name:
                value = helper.get_attribute_value(entry)
                return value.decode() if isinstance(value, bytes) else value
        formal = onnx.defs.get_schema(self.node.op_type, self.model.opset).attributes.get(name)
        if formal is None or not formal.default_value.name:
            return None
        value = helper.get_attribute_value(formal.default_value)
        return value.decode() if isinstance(value, bytes) else value

    def input(self, index: int) -> str | None:
        """Return an input of the node, None where it is omitted."""
        return (self.node.input[index] or None) if index < len(self.node.input) else None

    def same(self, inputs: Iterable[str | None], drop: Sequence[str] = (), **attributes: Any) -> Any:
        """Write the node again with other inputs and attributes; attributes of None are removed."""
        kept = {entry.name: entry for entry in self.node.attribute if entry.name not in (*drop, *attributes)}
        names = ["" if name is None else name for name in inputs]
        while names and not names[-1]:
            names.pop()
        outputs = [self.fresh(self.node.op_type) if name else "" for name in self.node.output]
        given = {key: value for key, value in attributes.items() if value is not None}
        twin = self.write(self.node.op_type, names, outputs, **given)
        twin.attribute.extend(kept.values())
        return outputs

    def refuse(self, what: str, fix: str) -> ExportError:
        """Return the error that names the node, its op, and a fix."""
        return ExportError(f"{describe(self.node)} {what}. Fix: {fix}")

    def under_own_names(self, results: Sequence[str]) -> list[onnx.NodeProto]:
        """Return the written nodes, with the names of the replaced node's outputs for the results."""
        made = {name for node in self.nodes for name in node.output}
        renamed: dict[str, str] = {}
        for name, source in zip(self.node.output, results, strict=False):
            if not name:
                continue
            if source in made and source not in renamed:
                renamed[source] = name
            else:
                self.write("Identity", [source], [name])
        for node in self.nodes:
            for names in (node.input, node.output):
                for position, tensor in enumerate(names):
                    names[position] = renamed.get(tensor, tensor)
            node.metadata_props.extend(self.node.metadata_props)
            node.name = self.model.fresh(f"{self.node.name}/{node.op_type}") if self.node.name else ""
        return self.nodes


def opset_of(proto: onnx.ModelProto) -> int:
    """Return the opset of ai.onnx that a model imports. Raises ExportError without one."""
    versions = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ExportError("the model imports no opset of ai.onnx. Fix: add an entry to its opset_import")
    return int(versions[0])


def is_heavy(tensor: onnx.TensorProto) -> bool:
    """Return whether an initializer is kept out of the passes."""
    return int(np.prod(tensor.dims, dtype=np.int64)) > _LIGHT


def describe(node: onnx.NodeProto) -> str:
    """Return a node's name and op, for messages."""
    return f"node {(node.name or next((name for name in node.output if name), ''))!r} ({node.op_type})"


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Give the nodes of a graph and of its subgraphs, at any depth."""
    return (node for one in _graphs(graph) for node in one.node)


def read_in(graph: onnx.GraphProto) -> Iterator[str]:
    """Give every name that a graph or a subgraph of it reads, and the names of their outputs."""
    for one in _graphs(graph):
        yield from (name for node in one.node for name in node.input if name)
        yield from (info.name for info in one.output)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove the nodes of a graph that no output depends on, subgraphs counted as read."""
    needed = {info.name for info in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed.isdisjoint(node.output):
            continue
        kept.append(node)
        needed.update(name for name in node.input if name)
        needed.update(name for body in subgraphs(node) for name in read_in(body))
    if len(kept) < len(graph.node):
        copies = [_copied(node) for node in reversed(kept)]
        del graph.node[:]
        graph.node.extend(copies)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for body in subgraphs(node):
            yield from _graphs(body)


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    twin = onnx.NodeProto()
    twin.CopyFrom(node)
    return twin
