"""If: a condition that depends on the data carries no gradient, so that each branch is differentiated by itself.

The backward pass is one If over the same condition. Its bodies compute the branch's tensors again and hold the branch's
backward pass. A branch reads tensors of the graph around it; those are the node's differentiable inputs. Refuses
branches whose tensors have no known types (converters/passes/branches.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.graph.program import body_of
from analyzer.ops.chain_rule import active_tensors, pull_back
from analyzer.ops.registry import ExplicitRule, register
from converters.graph.inference import inferred_of
from converters.graph.nodes import reads
from converters.passes.branches import BRANCHES, UNSETTLED_KEY
from converters.passes.unroll import REASON_KEY

# Larger constants are no shapes: inference needs their sizes alone.
_SMALL = 1024


@register
class If(ExplicitRule):
    inactive = frozenset({0})
    several_outputs = True
    has_bodies = True

    def torch(torch, *_: Any, **__: Any) -> Any:
        raise UnsupportedOp("a branch has no form by itself. Fix: run it by analyzer.backends.interpreter")

    tensorflow = torch

    def vjp(
        op: Builder,
        graph: Graph,
        node: Node,
        gradients: Sequence[Tensor | None],
        names: Sequence[str],
        **_: Any,
    ) -> Sequence[Tensor]:
        """The gradients at the tensors `names` that the branches read."""
        bodies = []
        for branch in branches_of(graph, node):
            inner = op.nested("If")
            seeds = zip(branch.outputs, gradients, strict=True)
            found = {name: g for name, g in seeds if g is not None}
            pull_back(branch, inner, found, active_tensors(branch, names))
            results = [found.get(name) or zeros(inner, branch.tensors[name]) for name in names]
            bodies.append(body_of(branch, inner, results))
        return op.choose(graph.tensors[node.inputs[0]], bodies, [graph.tensors[name] for name in names])

    def residual(op: Builder, graph: Graph, node: Node, names: Sequence[str]) -> Sequence[Tensor | None]:
        """y − Σ J u of each output: of the branch that is taken."""
        floats = [name for name in node.outputs if name and graph.tensors[name].is_float]
        places = [node.outputs.index(name) for name in floats]
        bodies = [_residuals(op, branch, names, places) for branch in branches_of(graph, node)]
        chosen = op.choose(graph.tensors[node.inputs[0]], bodies, [graph.tensors[name] for name in floats])
        found = dict(zip(floats, chosen, strict=True))
        return [found.get(name) for name in node.outputs]


def branches_of(graph: Graph, node: Node) -> Iterator[Graph]:
    """The branches of an If, for true and for false; the tensors around that they read are their inputs."""
    return (body_graph(graph, node, role) for role in BRANCHES)


def body_graph(graph: Graph, node: Node, role: str) -> Graph:
    """A body of a node as a graph; the tensors around that it reads are its inputs, behind those of the body.

    Raises UnsupportedOp where the types of the body's tensors are not known.
    """
    around = {name: graph.tensors[name] for name in node.captured if name in graph.tensors}
    body: onnx.GraphProto = node.attributes[role]
    typed = {info.name for info in (*body.value_info, *body.output)}
    unknown = not {name for inner in body.node for name in inner.output if name} <= typed
    if unknown or UNSETTLED_KEY in node.metadata:
        reason = f": {node.metadata[REASON_KEY]}" if REASON_KEY in node.metadata else ""
        raise UnsupportedOp(
            f"{node}: the types of the tensors in its {role} are not known{reason}. Fix: export the model with a fixed "
            "number of steps, or with shapes that stay the same, and convert it again"
        )
    own = Graph.from_body(body, graph.opset)
    return replace(own, tensors={**around, **own.tensors}, inputs=(*own.inputs, *around))


def zeros(op: Builder, x: Tensor) -> Tensor:
    """Emit zeros of the shape of a tensor, whatever it holds."""
    return op.Expand(op.tensor(np.zeros((), x.dtype)), op.Shape(x))


def _residuals(op: Builder, branch: Graph, names: Sequence[str], places: Sequence[int]) -> onnx.GraphProto:
    """The body that computes y − Σ J u of the outputs at these places of a branch.

    The backward pass Jᵀ c is linear in its cotangents c. Its own backward pass at the cotangents u is J u, whatever c
    is: the outputs are as good as any.
    """
    inner = op.nested("If")
    ys = [branch.tensors[branch.outputs[place]] for place in places]
    transposed, pulled, cotangents = _transposed(op, branch, names, ys)
    outputs = [transposed.tensors[name] for name in transposed.outputs]
    values, gradients = outputs[: len(ys)], outputs[len(ys) :]
    found = {g.name: transposed.tensors[name] for name, g in zip(pulled, gradients, strict=True)}
    pull_back(transposed, inner, found, active_tensors(transposed, cotangents))
    products = [found.get(name) for name in cotangents]
    results = [y if one is None else inner.Sub(y, one) for y, one in zip(values, products, strict=True)]
    renamed = {name: y.name for name, y in zip(cotangents, values, strict=True)}
    return body_of(transposed, inner, results, renamed)


def _transposed(
    op: Builder, branch: Graph, names: Sequence[str], ys: Sequence[Tensor]
) -> tuple[Graph, list[str], list[str]]:
    """The branch with its backward pass as one graph, the tensors that have gradients, and the cotangents' names.

    Its outputs are those of the branch, then the gradients.
    """
    emitted = op.nested("If")
    # The cotangents are placeholders, whose values no mask may read.
    emitted.masked = False
    cotangents = [Tensor(emitted.fresh("cotangent"), y.dtype, y.shape) for y in ys]
    found = {y.name: c for y, c in zip(ys, cotangents, strict=True)}
    pull_back(branch, emitted, found, active_tensors(branch, names))
    pulled = [name for name in names if name in found]
    body = body_of(branch, emitted, [*ys, *(found[name] for name in pulled)])
    read = {name for node in body.node for name in reads(node)}
    constants = {n: t.constant for n in branch.inputs if (t := branch.tensors[n]).constant is not None}
    constants |= {name: array for name, array in emitted.initializers.items() if name in read}
    given = [*cotangents, *(branch.tensors[name] for name in branch.inputs)]
    given = [t for t in given if t.name not in constants]
    given += [Tensor(n, a.dtype, a.shape) for n, a in constants.items() if a.size > _SMALL]
    body.input.extend(_info(tensor) for tensor in given)
    small = ((n, a) for n, a in constants.items() if a.size <= _SMALL)
    body.initializer.extend(numpy_helper.from_array(array, name) for name, array in small)
    imports = [helper.make_opsetid("", branch.opset)]
    graph = Graph.from_proto(inferred_of(helper.make_model(body, opset_imports=imports)))
    known = {name: Tensor(name, array.dtype, array.shape, array) for name, array in constants.items()}
    tensors = {**graph.tensors, **known}
    names = [tensor.name for tensor in cotangents]
    return replace(graph, tensors=tensors, inputs=(*branch.inputs, *names)), pulled, names


def _info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, Builder.dtype_of(tensor), tensor.shape)
