"""A read-only view of a canonical ONNX graph: nodes, tensors, shapes, what depends on what.

Reads an `onnx.ModelProto` without subgraphs on its main path; returns frozen records. Attribute
defaults are completed here, once, from the ONNX schemas. Nothing here knows how to differentiate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.graph.magnitudes import infinite_tensors, masking_tensors
from converters.types import Shape
from converters.weights.halves import HALVES, is_widening
from converters.weights.mapping import FileMap, maps_of
from converters.weights.references import array_of, is_large


@dataclass(frozen=True)
class Tensor:
    """A named tensor. `shape` has an int, a symbol or None (unknown) per axis, or is None (unknown rank).

    `constant` holds the value where it is known before running. A large weight in half precision of a float32 tensor
    stays as it is `stored`, and each reading of `constant` makes a float32 copy.
    """

    name: str
    dtype: np.dtype[Any]
    shape: Shape | None = None
    constant: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def stored(self) -> np.ndarray | None:
        """The value as it is stored, which may be in a lower precision."""
        found: np.ndarray | None = self.__dict__["constant"]
        return found

    @property
    def rank(self) -> int:
        """The number of axes."""
        assert self.shape is not None, f"the rank of {self.name!r} is unknown"
        return len(self.shape)

    @property
    def is_float(self) -> bool:
        """Whether the tensor can carry a gradient (bfloat16 and float16 included)."""
        return is_float(self.dtype)


class _Constant:
    """A field with an array, which is read in the dtype of its tensor, in whatever precision it is stored."""

    def __get__(self, tensor: Tensor | None, owner: type) -> Any:
        if tensor is None:
            return self
        stored = tensor.stored
        return stored if stored is None or stored.dtype == tensor.dtype else stored.astype(tensor.dtype)

    def __set__(self, tensor: Tensor, array: np.ndarray | None) -> None:
        tensor.__dict__["constant"] = array


# The field is that of a plain dataclass; this reads it.
Tensor.constant = _Constant()  # type: ignore[assignment]


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a dtype is a floating type; ml_dtypes' bfloat16 has NumPy kind V."""
    return dtype.kind == "f" or dtype.name in ("bfloat16", "float16")


@dataclass(frozen=True)
class Node:
    """One operator application. Omitted optional inputs and outputs are empty strings."""

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    metadata: Mapping[str, str] = field(default_factory=dict)
    captured: tuple[str, ...] = ()
    """Tensors of the outer graph that the node's subgraphs read."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Every tensor that the node needs, its subgraphs' included."""
        return self.inputs + self.captured

    def __str__(self) -> str:
        return f"node {self.name or self.outputs[0]!r} ({self.op_type})"


@dataclass(frozen=True)
class Graph:
    """Nodes in topological order, and every tensor by name. Initializers are tensors with a constant."""

    nodes: tuple[Node, ...]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    opset: int

    @classmethod
    def from_proto(cls, proto: onnx.ModelProto) -> Graph:
        """Read a canonical model. Shapes come from its value_info."""
        standard = (entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
        # A file that has no canonical form may import other ops alone.
        opset = next(standard, onnx.defs.onnx_opset_version())
        return cls.from_body(proto.graph, opset)

    @classmethod
    def from_body(cls, graph: onnx.GraphProto, opset: int) -> Graph:
        """Read a graph by itself, such as the body of a Scan; what it reads from around it is no tensor of it."""
        tensors: dict[str, Tensor] = {}
        for info in (*graph.value_info, *graph.input, *graph.output):
            tensors[info.name] = _tensor_of(info)
        for initializer in graph.initializer:
            array = array_of(initializer)
            tensors[initializer.name] = Tensor(initializer.name, array.dtype, array.shape, array)
        constants = {initializer.name for initializer in graph.initializer}
        nodes = tuple(
            _node_of(node, index, opset)
            for index, node in enumerate(graph.node)
            if not _is_widening(node, tensors)
        )
        for node in nodes:
            for name in node.outputs:
                if name and name not in tensors:
                    tensors[name] = Tensor(name, _UNKNOWN_DTYPE)
        return cls(
            nodes=nodes,
            tensors=tensors,
            inputs=tuple(info.name for info in graph.input if info.name not in constants),
            outputs=tuple(info.name for info in graph.output),
            opset=opset,
        )

    @cached_property
    def producer(self) -> Mapping[str, Node]:
        """The node that computes each tensor."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    @cached_property
    def files(self) -> tuple[FileMap, ...]:
        """The mapped files that hold weights."""
        return maps_of(tensor.stored for tensor in self.tensors.values() if tensor.stored is not None)

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The place of each node, by name, in topological order."""
        return {node.name: index for index, node in enumerate(self.nodes)}

    @cached_property
    def infinite(self) -> frozenset[str]:
        """The float tensors that may hold an infinity, as the masked scores of an attention do."""
        return infinite_tensors(self)

    @cached_property
    def masking(self) -> frozenset[str]:
        """The float tensors that may hold the large negative numbers of a mask."""
        return masking_tensors(self)

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes that read each tensor, in topological order."""
        found: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.reads):
                if name:
                    found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    def inputs_of(self, node: Node) -> list[Tensor | None]:
        """The tensors a node reads; None where an optional input is omitted."""
        return [self.tensors[name] if name else None for name in node.inputs]

    def outputs_of(self, node: Node) -> list[Tensor | None]:
        """The tensors a node computes; None where an optional output is omitted."""
        return [self.tensors[name] if name else None for name in node.outputs]

    def descendants(
        self, roots: Iterable[str], through: Callable[[Node, int], bool] = lambda node, index: True
    ) -> frozenset[str]:
        """Tensors that depend on `roots`, roots included, along edges (indices of `reads`) that `through` admits."""
        found = set(roots)
        for node in self.nodes:
            if any(name in found and through(node, index) for index, name in enumerate(node.reads)):
                found.update(name for name in node.outputs if name)
        return frozenset(found)

    def ancestors(self, leaves: Iterable[str]) -> frozenset[str]:
        """Tensors that `leaves` depend on, leaves included."""
        found = set(leaves)
        for node in reversed(self.nodes):
            if any(name in found for name in node.outputs):
                found.update(name for name in node.reads if name)
        return frozenset(found)

    def dependent(self, names: Sequence[str]) -> list[str]:
        """The names of those of these tensors that are computed from another of them, in the order given."""
        wanted, found, above = set(names), set(names), set[str]()
        for node in self.nodes:
            if not found.isdisjoint(node.reads):
                above.update(wanted.intersection(node.outputs))
                found.update(name for name in node.outputs if name)
        return [name for name in names if name in above]

    @cached_property
    def default_output(self) -> str:
        """The output that is explained by default: the first float output that depends on an input."""
        inputs = frozenset(self.inputs)
        for name in self.outputs:
            if self.tensors[name].is_float and not inputs.isdisjoint(self.ancestors([name])):
                return name
        return self.outputs[0]


def _is_widening(node: onnx.NodeProto, tensors: dict[str, Tensor]) -> bool:
    """Whether a node casts a large weight to a wider type. Its result then is a constant in `tensors`."""
    if not is_widening(node):
        return False
    weight, result = tensors.get(node.input[0]), tensors.get(node.output[0])
    if weight is None or weight.stored is None or not is_large(weight.stored):
        return False
    (to,) = (entry.i for entry in node.attribute if entry.name == "to")
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(to))
    if weight.dtype not in HALVES or result is None:
        return False
    tensors[result.name] = Tensor(result.name, dtype, weight.shape, weight.stored)
    return True


_UNKNOWN_DTYPE: np.dtype[Any] = np.dtype("float32")


def _tensor_of(info: onnx.ValueInfoProto) -> Tensor:
    kind = info.type.tensor_type
    dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)) if kind.elem_type else _UNKNOWN_DTYPE
    if not kind.HasField("shape"):
        return Tensor(info.name, dtype)
    shape: Shape = tuple(
        axis.dim_value if axis.HasField("dim_value") else (axis.dim_param or None) for axis in kind.shape.dim
    )
    return Tensor(info.name, dtype, shape)


def _node_of(node: onnx.NodeProto, index: int, opset: int) -> Node:
    given = {attribute.name: _plain(attribute) for attribute in node.attribute}
    return Node(
        name=node.name or f"{node.op_type}_{index}",
        op_type=node.op_type,
        domain="" if node.domain == "ai.onnx" else node.domain,
        inputs=tuple(node.input),
        outputs=tuple(node.output),
        attributes={**attribute_defaults(node.op_type, node.domain, opset), **given},
        metadata={entry.key: entry.value for entry in node.metadata_props},
        captured=tuple(sorted(captured(node))),
    )


def captured(node: onnx.NodeProto) -> set[str]:
    """Names that the subgraphs of a node read from the graph around it."""
    names: set[str] = set()
    for attribute in node.attribute:
        for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            inner = {entry.name for entry in (*body.input, *body.initializer)}
            for child in body.node:
                names |= ({name for name in child.input if name} | captured(child)) - inner
                inner.update(child.output)
            names |= {entry.name for entry in body.output} - inner
    return names


def _plain(attribute: onnx.AttributeProto) -> Any:
    """An attribute as Python: str for bytes, ndarray for tensors, list for repeated fields."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if attribute.type == onnx.AttributeProto.STRINGS:
        return [text.decode("utf-8", "replace") for text in value]
    if attribute.type in (onnx.AttributeProto.INTS, onnx.AttributeProto.FLOATS):
        return list(value)
    return value


@cache
def attribute_defaults(op_type: str, domain: str, opset: int) -> Mapping[str, Any]:
    """Every attribute of an op with the default its schema states; None where it states none."""
    domain = "" if domain == "ai.onnx" else domain
    if domain or not onnx.defs.has(op_type, opset, domain):
        return {}
    schema = onnx.defs.get_schema(op_type, opset, domain)
    return {
        name: _plain(attribute.default_value) if attribute.default_value.name else None
        for name, attribute in schema.attributes.items()
    }
