"""Assemble a runnable ONNX model from emitted nodes and the part of the graph that they need.

`assemble` walks back from the outputs: what a Builder emitted is taken, tensors named `available` become
inputs of the program, and everything else is recomputed by the graph's own nodes. Dead nodes never
enter. The same function therefore builds the full gradient graph (nothing is available but the inputs) and
the arithmetic that follows a native backend's gradients (its values and gradients are available).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, Tensor, captured
from converters.graph.kernels import exact_nodes
from converters.graph.nodes import rename_in
from converters.types import Shape

IR_VERSION = 10
ONE = "exact/one"


@dataclass(frozen=True)
class Program:
    """Nodes in order, the tensors that they must be fed, their constants, and the tensor of each named result."""

    nodes: Sequence[onnx.NodeProto]
    fed: Sequence[Tensor]
    constants: Mapping[str, np.ndarray]
    results: Mapping[str, Tensor]
    opset: int
    stated: Sequence[Tensor] = ()
    """Computed tensors of a known shape."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of what must be fed."""
        return tuple(tensor.name for tensor in self.fed)

    @property
    def outputs(self) -> Mapping[str, str]:
        """The ONNX name of each named result."""
        return {key: tensor.name for key, tensor in self.results.items()}

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The ONNX model, with copies of the constants."""
        return self.with_constants(self.constants)

    def returning(self, names: Collection[str]) -> onnx.ModelProto:
        """The ONNX model that gives these tensors, of whatever type, in place of the results."""
        proto = self.with_constants(self.constants)
        del proto.graph.output[:]
        for name in names:
            proto.graph.output.add(name=name)
        return proto

    def with_constants(self, constants: Mapping[str, np.ndarray]) -> onnx.ModelProto:
        """The ONNX model with some of the constants; those left out become inputs of their type and shape."""
        hidden = [
            Tensor(name, array.dtype, array.shape)
            for name, array in self.constants.items()
            if name not in constants
        ]
        return helper.make_model(
            helper.make_graph(
                self.nodes,
                "onnxplain",
                [_info(tensor, tensor.shape) for tensor in (*self.fed, *hidden)],
                [_info(tensor, None) for tensor in self.results.values()],
                [numpy_helper.from_array(array, name) for name, array in constants.items()],
                value_info=[_info(tensor, tensor.shape) for tensor in self.stated],
            ),
            opset_imports=[helper.make_opsetid("", self.opset), *_other_opsets(self.nodes)],
            ir_version=IR_VERSION,
            producer_name="onnxplain",
        )


def _other_opsets(nodes: Sequence[onnx.NodeProto]) -> list[onnx.OperatorSetIdProto]:
    """Return the opset of ai.onnx.ml where nodes are of that domain: trees have another op since 5."""
    kinds = {node.op_type for node in nodes if node.domain == "ai.onnx.ml"}
    return [helper.make_opsetid("ai.onnx.ml", 5 if "TreeEnsemble" in kinds else 4)] if kinds else []


def assemble(
    graph: Graph,
    op: Builder,
    outputs: Mapping[str, Tensor],
    available: Collection[str] = (),
    extra_inputs: Mapping[str, Tensor] | None = None,
) -> Program:
    """Build a Program whose results are `outputs` {name of the result: tensor}.

    `extra_inputs` are inputs that the graph does not have (the seed, measured gradients); they come in only
    where something reads them.
    """
    extra = dict(extra_inputs or {})
    emitted = {name for node in op.nodes for name in node.output if name}
    forward = {name for node in graph.nodes for name in node.outputs if name} | op.extra_outputs.keys()
    leaves = [t.name for t in outputs.values()]
    body, used = _live_nodes(graph, op, leaves, set(available) | extra.keys(), available)
    constants: dict[str, np.ndarray] = {
        name: array for name, array in op.initializers.items() if name in used
    }
    for name in sorted(used):
        tensor = graph.tensors.get(name)
        if tensor is not None and tensor.constant is not None:
            constants[name] = tensor.constant
    nowhere = used - emitted - forward - constants.keys() - extra.keys() - set(available)
    assert nowhere <= set(graph.inputs), f"nothing computes {sorted(nowhere - set(graph.inputs))}"
    inputs = [
        extra.get(name) or graph.tensors[name]
        for name in (*graph.inputs, *sorted(set(available) - set(graph.inputs)), *extra)
        if name in used and name not in constants
    ]
    results: dict[str, Tensor] = {}
    produced = {name for node in body.nodes for name in node.output}
    taken: set[str] = set()
    for key, tensor in outputs.items():
        name = tensor.name
        if name not in produced or name in taken:
            # An ONNX output must be computed by a node, and stand in the list once.
            name = f"output/{key}"
            body.write("Identity", [tensor.name], [name], name=name)
        taken.add(name)
        results[key] = Tensor(name, tensor.dtype)
    stated = [op.stated[name] for name in sorted(produced & op.stated.keys() - taken)]
    exact = exact_nodes(body.nodes, lambda node: _shows_tails(graph, op, node.output[0]), ONE)
    if len(exact) > len(body.nodes):
        constants[ONE] = np.asarray(1, np.float32)
    return Program(exact, inputs, constants, results, graph.opset, stated)


def body_of(
    graph: Graph,
    op: Builder,
    results: Sequence[Tensor],
    renamed: Mapping[str, str] | None = None,
    inputs: Sequence[Tensor] = (),
) -> onnx.GraphProto:
    """Build a body from a graph and the nodes that were emitted for it; its results are `results`.

    Tensors that neither computes are those of the graph around: the graph's inputs, and the Builder's constants. The
    graph's own tensors get names of the body, as do `inputs`, those of the body. renamed: tensors that others stand
    for.
    """
    body, used = _live_nodes(graph, op, [tensor.name for tensor in results], (), ())
    around = {*graph.inputs, *op.initializers}
    stored = {
        name: tensor.constant
        for name in sorted(used - around)
        if (tensor := graph.tensors.get(name)) is not None and tensor.constant is not None
    }
    own = {name for node in graph.nodes for name in node.outputs if name} | stored.keys()
    own |= {tensor.name for tensor in inputs if not tensor.name.startswith(op.prefix)}
    names = {name: f"{op.prefix}{name}" for name in own}
    names |= {old: names.get(new, new) for old, new in (renamed or {}).items()}
    for node in body.nodes:
        rename_in(node, names)
        node.name = f"{op.prefix}{node.name}" if not node.name.startswith(op.prefix) else node.name
    produced = {name for node in body.nodes for name in node.output}
    outputs: list[onnx.ValueInfoProto] = []
    for tensor in results:
        name = names.get(tensor.name, tensor.name)
        if name not in produced or name in {info.name for info in outputs}:
            # A body must compute what it returns, each result under a name of its own.
            again = op.fresh("result")
            body.write("Identity", [name], [again], name=again)
            name = again
        outputs.append(_info(Tensor(name, tensor.dtype), None))
    constants = [numpy_helper.from_array(array, names[name]) for name, array in stored.items()]
    given = [_info(replace(t, name=names.get(t.name, t.name)), t.shape) for t in inputs]
    return helper.make_graph(body.nodes, op.prefix.rstrip("/"), given, outputs, constants)


def _live_nodes(
    graph: Graph, op: Builder, leaves: Iterable[str], known: Collection[str], available: Collection[str]
) -> tuple[Builder, set[str]]:
    """The nodes of a graph and of a Builder that the leaves need, in order, and every tensor in use.

    known: tensors that are not computed. available: those of them that the graph's nodes would compute.
    """
    emitted = {name: node for node in op.nodes for name in node.output if name}
    forward = {name: node for node in graph.nodes for name in node.outputs if name}
    forward.update(op.extra_outputs)
    live, used = _walk(emitted, forward, leaves, known)
    body = Builder(graph.opset)
    # A node that is run again for an optional output must not define what the program is fed.
    renamed = {name: f"again/{name}" for name in available}
    for node in graph.nodes:
        if node.name in live:
            body.copy(node, renamed, grown=op)
    for node in op.nodes:
        if f"emitted:{node.name}" in live:
            body.nodes.append(node)
    return body, used


def _shows_tails(graph: Graph, op: Builder, y: str) -> bool:
    """Whether the relative error of a Sigmoid can be seen: in float32, except in x · sigmoid(a · x), where all that
    reads it multiplies it by its own input, and an absolute error of 1e-7 is below the rounding of what follows.
    """
    tensor = graph.tensors.get(y)
    if tensor is None:
        return any(call.outputs[0].name == y and call.outputs[0].dtype == np.float32 for call in op.calls)
    (x,) = graph.producer[y].inputs
    scaled = graph.producer.get(x)
    own = {x, *(scaled.inputs if scaled is not None and scaled.op_type == "Mul" else ())}
    readers = graph.consumers.get(y, ())
    gated = readers and all(node.op_type == "Mul" and own & set(node.inputs) for node in readers)
    return tensor.dtype == np.float32 and (y in graph.outputs or not gated)


def _info(tensor: Tensor, shape: Shape | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, Builder.dtype_of(tensor), shape)


def _walk(
    emitted: Mapping[str, onnx.NodeProto],
    forward: Mapping[str, Node],
    leaves: Iterable[str],
    available: Collection[str],
) -> tuple[set[str], set[str]]:
    """The names of the live nodes ("emitted:" before those of the Builder), and of every tensor in use."""
    live: set[str] = set()
    used: set[str] = set()
    stack = list(leaves)
    while stack:
        name = stack.pop()
        if not name or name in used:
            continue
        used.add(name)
        if name in available:
            continue
        if name in emitted:
            live.add(f"emitted:{emitted[name].name}")
            stack.extend((*emitted[name].input, *captured(emitted[name])))
        elif name in forward:
            live.add(forward[name].name)
            stack.extend(forward[name].reads)
    return live, used
