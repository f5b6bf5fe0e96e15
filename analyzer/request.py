"""What a method asks of a backend, and the two ONNX programs that can answer it.

A Request names the tensors whose gradients it needs and emits its own arithmetic on them, once, as ONNX.
`full_program` is forward pass, seed, backward sweep and arithmetic in one graph: what ONNX Runtime runs and what is
exported. `remainder_program` is what is left where a native framework has already measured values and
gradients: the arithmetic, and the local sweep for tensors that the framework does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.autodiff import sweep
from analyzer.emitter import Emitter
from analyzer.graph import Graph, Tensor
from analyzer.program import Program, assemble

OUTPUT = "explained output"
"""The result that holds the explained scalar of each sample, (N,)."""
CHOSEN = "explained class"
"""The result that holds the class of each sample, (N,), where a class is explained."""

Emission = Callable[[Emitter, Graph, Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Request:
    """Gradients at `wrt`, and `emit(op, graph, gradients) -> {name of the result: tensor}` on top of them.

    `key` identifies the request: two requests of one key emit the same nodes, so programs are cached by it.
    """

    key: Hashable
    wrt: tuple[str, ...]
    emit: Emission


def observe(values: Sequence[str], wrt: Sequence[str]) -> Request:
    """Ask for plain values and gradients: "value/t" and "gradient/t" of the tensors named."""

    def emit(op: Emitter, graph: Graph, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found = {gradient_name(name): gradients[name] for name in wrt}
        return {**found, **{f"value/{name}": graph.tensors[name] for name in values}}

    return Request(("observe", tuple(values), tuple(wrt)), tuple(wrt), emit)


def joined(first: Request, second: Request) -> Request:
    """Both requests in one run of the model: their results belong to the very same values."""

    def emit(op: Emitter, graph: Graph, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {**first.emit(op, graph, gradients), **second.emit(op, graph, gradients)}

    return Request((first.key, second.key), (*first.wrt, *second.wrt), emit)


def full_program(graph: Graph, request: Request, output: str, *, weights: bool) -> Program:
    """The whole computation as one ONNX model.

    Its inputs are the model's own and `target`: class indices (N,), −1 for the highest, or with `weights` an
    array like the output. Raises UnsupportedOp where a node on the path has no rule.
    """
    op = Emitter(graph.opset, prefix=_free_prefix(graph, "backward/"))
    y = graph.tensors[output]
    target = _target_input(graph, y, weights)
    if weights:
        cotangent, seeded = _weights_seed(op, y, target, graph.holds_infinity)
    else:
        cotangent, seeded = _index_seed(op, y, target, graph.holds_infinity)
    gradients = sweep(graph, op, {output: cotangent}, request.wrt)
    results = request.emit(op, graph, gradients)
    return assemble(graph, op, {**seeded, **results}, extra_inputs={target.name: target})


def gradient_name(tensor: str) -> str:
    """The name under which a measured gradient is fed to a `remainder_program`."""
    return f"gradient/{tensor}"


def remainder_program(
    graph: Graph, request: Request, values: Collection[str], gradients: Collection[str]
) -> Program:
    """What follows a native backend that knows the `values` and `gradients` of these tensors.

    Its inputs are those of them that it needs: values under their own names, gradients under `gradient_name`.
    """
    op = Emitter(graph.opset, prefix=_free_prefix(graph, "after/"))
    known = {
        name: Tensor(gradient_name(name), graph.tensors[name].dtype, graph.tensors[name].shape)
        for name in gradients
    }
    swept = sweep(graph, op, known, request.wrt)
    results = request.emit(op, graph, swept)
    extra = {tensor.name: tensor for tensor in known.values()}
    return assemble(graph, op, results, available=values, extra_inputs=extra)


def _free_prefix(graph: Graph, prefix: str) -> str:
    """A prefix that no tensor of the graph begins with: a graph may itself be an exported explainer."""
    while any(name.startswith(prefix) for name in graph.tensors):
        prefix = f"_{prefix}"
    return prefix


def _target_input(graph: Graph, y: Tensor, weights: bool) -> Tensor:
    name = "target"
    while name in graph.tensors:
        name = f"_{name}"
    if weights:
        return Tensor(name, y.dtype, y.shape)
    return Tensor(name, np.dtype(np.int64), (y.shape[0] if y.shape else 1,))


def _rows(op: Emitter, value: Tensor, rank: int) -> Tensor:
    """An output, or what is shaped like it, as (N, elements of a sample)."""
    return op.Flatten(value, axis=1) if rank else op.Reshape(value, [1, 1])


def _weighted(op: Emitter, y: Tensor, weights: Tensor, infinite: bool) -> Tensor:
    """y times weights. infinite: an attention's mask may put −∞ where the weight is 0, and 0 · ∞ is no number."""
    product = op.Mul(y, weights)
    return op.Where(op.Equal(weights, 0.0), 0.0, product) if infinite else product


def _weights_seed(op: Emitter, y: Tensor, target: Tensor, infinite: bool) -> tuple[Tensor, dict[str, Tensor]]:
    rows = _rows(op, _weighted(op, y, target, infinite), y.rank)
    return target, {OUTPUT: op.ReduceSum(rows, [1], keepdims=0)}


def _index_seed(op: Emitter, y: Tensor, target: Tensor, infinite: bool) -> tuple[Tensor, dict[str, Tensor]]:
    rows = _rows(op, y, y.rank)
    highest = op.ArgMax(rows, axis=1, keepdims=0)
    chosen = op.Where(op.Less(target, 0), highest, target)
    classes = op.Range(0, op.Squeeze(op.Shape(rows, start=1, end=2), [0]), 1)
    hits = op.Equal(op.Unsqueeze(chosen, [1]), op.Unsqueeze(classes, [0]))
    one_hot = op.Cast(hits, to=op.dtype_of(y))
    scalar = op.ReduceSum(_weighted(op, rows, one_hot, infinite), [1], keepdims=0)
    return op.Reshape(one_hot, op.Shape(y)), {OUTPUT: scalar, CHOSEN: chosen}
