"""What a method asks of a backend, and the two ONNX programs that can answer it.

A Request names the tensors whose gradients it needs and emits its own arithmetic on them, once, as ONNX.
`full_program` is forward pass, seed, backward sweep and arithmetic in one graph: what ONNX Runtime runs and what is
exported. `remainder_program` is what is left where a native framework has already measured values and
gradients: the arithmetic, and the local sweep for tensors that the framework does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyzer.autodiff.sweep import sweep
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor
from analyzer.graph.program import Program, assemble
from analyzer.target.target import Seed

OUTPUT = "explained output"
"""The result that holds the explained scalar of each sample, (N,)."""
CHOSEN = "explained class"
"""The result that holds the class of each sample, (N,), where a class is explained."""

Emission = Callable[[Builder, Graph, Mapping[str, Tensor]], Mapping[str, Tensor]]


@dataclass(frozen=True)
class Request:
    """Gradients at `wrt`, and `emit(op, graph, gradients) -> {name of the result: tensor}` on top of them.

    `key` identifies the request: two requests of one key emit the same nodes, so programs are cached by it.
    by_rank: whether it holds for gradients of several scalars a sample, which it is given along a last axis.
    masked: whether a cotangent of 0 stays 0 past infinite derivatives (analyzer/ops/masking.py); for runs that
        gave NaN.
    """

    key: Hashable
    wrt: tuple[str, ...]
    emit: Emission
    by_rank: bool = False
    masked: bool = False


def observe(values: Sequence[str], wrt: Sequence[str]) -> Request:
    """Ask for plain values and gradients: "value/t" and "gradient/t" of the tensors named."""

    def emit(op: Builder, graph: Graph, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        found = {gradient_name(name): gradients[name] for name in wrt}
        return {**found, **{f"value/{name}": graph.tensors[name] for name in values}}

    return Request(("observe", tuple(values), tuple(wrt)), tuple(wrt), emit, by_rank=True)


def joined(first: Request, second: Request) -> Request:
    """Both requests in one run of the model: their results belong to the very same values."""

    def emit(op: Builder, graph: Graph, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {**first.emit(op, graph, gradients), **second.emit(op, graph, gradients)}

    return Request((first.key, second.key), (*first.wrt, *second.wrt), emit)


def masked(request: Request) -> Request:
    """The same, with a cotangent of 0 kept at 0."""
    return replace(request, key=("masked", request.key), masked=True)


def full_program(
    graph: Graph,
    request: Request,
    output: str,
    *,
    weights: bool,
    more: Sequence[str] = (),
    ranks: int | None = None,
) -> Program:
    """The whole computation as one ONNX model.

    Its inputs are the model's own and `target`: class indices (N,), −1 for the highest, or with `weights` an
    array like the output. more: further outputs, each with weights of its own, whose sum with the first is explained.
    ranks: so many classes of each sample are explained, one by one, over one forward pass: indices (N, ranks), −1 for
    the highest, the second highest, …; every result has them along its last axis.
    Raises UnsupportedOp where a node on the path has no rule.
    """
    op = Builder(graph.opset, prefix=_free_prefix(graph, "backward/"))
    op.masked = request.masked
    outputs = (output, *more)
    names = ("target", *(f"target/{name}" for name in more))
    targets = [
        _target_input(graph, name, graph.tensors[of], weights, ranks)
        for name, of in zip(names, outputs, strict=True)
    ]
    if weights:
        seeds, seeded = weights_seeds(op, graph, dict(zip(outputs, targets, strict=True)))
    else:
        seeds, seeded = _index_seeds(op, graph, output, targets[0], ranks)
    gradients = _by_rank(op, [sweep(graph, op, {}, request.wrt, seed) for seed in seeds], ranks)
    results = request.emit(op, graph, gradients)
    return assemble(graph, op, {**seeded, **results}, extra_inputs={t.name: t for t in targets})


def program_for(graph: Graph, request: Request, seed: Seed) -> Program:
    """The `full_program` for seeds of this form."""
    weighted, more = seed.weights is not None, tuple(seed.more)
    return full_program(graph, request, seed.output, weights=weighted, more=more, ranks=seed.ranks)


def gradient_name(tensor: str, rank: int | None = None) -> str:
    """The name under which a measured gradient is fed to a `remainder_program`."""
    return f"gradient/{tensor}" if rank is None else f"gradient {rank}/{tensor}"


def seed_name(tensor: str) -> str:
    """The name under which what the target adds to the gradient at a tensor is fed to a `remainder_program`."""
    return f"seed/{tensor}"


def remainder_program(
    graph: Graph,
    request: Request,
    values: Collection[str],
    gradients: Collection[str],
    ranks: int | None = None,
    seeds: Collection[str] = (),
) -> Program:
    """What follows a native backend that knows the `values` and `gradients` of these tensors, the latter of each rank.

    seeds: tensors that the target is made of, where their gradients are not known.
    Its inputs are those of them that it needs: values under their own names, gradients under `gradient_name`, what the
    target adds to the gradient at a tensor under `seed_name`.
    """
    op = Builder(graph.opset, prefix=_free_prefix(graph, "after/"))
    op.masked = request.masked
    known = [
        {
            name: Tensor(gradient_name(name, rank), graph.tensors[name].dtype, graph.tensors[name].shape)
            for name in gradients
        }
        for rank in (range(ranks) if ranks is not None else (None,))
    ]
    added = {
        name: Tensor(seed_name(name), graph.tensors[name].dtype, graph.tensors[name].shape) for name in seeds
    }
    swept = _by_rank(op, [sweep(graph, op, one, request.wrt, added) for one in known], ranks)
    results = request.emit(op, graph, swept)
    extra = {tensor.name: tensor for one in (*known, added) for tensor in one.values()}
    return assemble(graph, op, results, available=values, extra_inputs=extra)


def sized_program(
    graph: Graph,
    request: Request,
    outputs: Sequence[str],
    gradients: Collection[str],
    ranks: int | None = None,
) -> Program:
    """The forward pass and the `remainder_program` of a backend that measures these gradients, for its sizes alone.

    A gradient is as large as its tensor, whose negation stands in its place.
    """
    op = Builder(graph.opset, prefix=_free_prefix(graph, "after/"))
    op.masked = request.masked
    known = [
        {name: op.shaped(op.Neg(graph.tensors[name]), graph.tensors[name].shape) for name in gradients}
        for _ in range(ranks or 1)
    ]
    swept = _by_rank(op, [sweep(graph, op, one, request.wrt) for one in known], ranks)
    values = {f"value/{name}": graph.tensors[name] for name in outputs}
    return assemble(graph, op, {**values, **request.emit(op, graph, swept)})


def _by_rank(op: Builder, swept: Sequence[dict[str, Tensor]], ranks: int | None) -> dict[str, Tensor]:
    """The gradients of one scalar, or those of several stacked along a last axis."""
    if ranks is None:
        return swept[0]
    return {name: op.Concat(*(op.Unsqueeze(one[name], [-1]) for one in swept), axis=-1) for name in swept[0]}


def _free_prefix(graph: Graph, prefix: str) -> str:
    """A prefix that no tensor of the graph begins with: a graph may itself be an exported explainer."""
    while any(name.startswith(prefix) for name in graph.tensors):
        prefix = f"_{prefix}"
    return prefix


def _target_input(graph: Graph, name: str, y: Tensor, weights: bool, ranks: int | None) -> Tensor:
    while name in graph.tensors:
        name = f"_{name}"
    if weights:
        return Tensor(name, y.dtype, y.shape)
    rows = y.shape[0] if y.shape else 1
    return Tensor(name, np.dtype(np.int64), (rows,) if ranks is None else (rows, ranks))


def _rows(op: Builder, value: Tensor, rank: int) -> Tensor:
    """An output, or what is shaped like it, as (N, elements of a sample)."""
    return op.Flatten(value, axis=1) if rank else op.Reshape(value, [1, 1])


def _weighted(op: Builder, y: Tensor, weights: Tensor, infinite: bool) -> Tensor:
    """y times weights. infinite: an attention's mask may put −∞ where the weight is 0, and 0 · ∞ is no number."""
    product = op.Mul(y, weights)
    return op.Where(op.Equal(weights, 0.0), 0.0, product) if infinite else product


def weights_seeds(
    op: Builder, graph: Graph, weights: Mapping[str, Tensor]
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Return the cotangents of outputs that are weighed, and the sum of each sample. weights: {output: tensor}."""
    scalars = []
    for name, target in weights.items():
        y = graph.tensors[name]
        rows = _rows(op, _weighted(op, y, target, op.masked or name in graph.infinite), y.rank)
        scalars.append(op.ReduceSum(rows, [1], keepdims=0))
    return [dict(weights)], {OUTPUT: scalars[0] if len(scalars) == 1 else op.Sum(*scalars)}


def _index_seeds(
    op: Builder, graph: Graph, output: str, target: Tensor, ranks: int | None
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    rows = class_rows(op, graph, output)
    if ranks is None:
        highest = op.ArgMax(rows, axis=1, keepdims=0)
    else:
        _, indices = op.emit("TopK", [rows, [ranks]], outputs=2, axis=1)
        highest = replace(indices, dtype=np.dtype(np.int64))
    return class_seeds(op, graph, output, rows, op.Where(op.Less(target, 0), highest, target), ranks)


def class_rows(op: Builder, graph: Graph, output: str) -> Tensor:
    """Return an output as (N, classes): all elements of a sample."""
    y = graph.tensors[output]
    return _rows(op, y, y.rank)


def class_seeds(
    op: Builder, graph: Graph, output: str, rows: Tensor, chosen: Tensor, ranks: int | None = None
) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Return the cotangents of classes that are chosen, (N,) or (N, ranks), and their scores with the classes.

    rows: the output as `class_rows` gives it.
    """
    y = graph.tensors[output]
    classes = op.Unsqueeze(op.Range(0, op.Squeeze(op.Shape(rows, start=1, end=2), [0]), 1), [0])
    shape = op.Shape(y)
    seeds, scalars = [], []
    for rank in range(1 if ranks is None else ranks):
        one = op.Unsqueeze(chosen, [1]) if ranks is None else op.Gather(chosen, [rank], axis=1)
        one_hot = op.Cast(op.Equal(one, classes), to=op.dtype_of(y))
        weighted = _weighted(op, rows, one_hot, op.masked or output in graph.infinite)
        scalars.append(op.ReduceSum(weighted, [1], keepdims=int(ranks is not None)))
        seeds.append({output: op.Reshape(one_hot, shape)})
    return seeds, {OUTPUT: scalars[0] if ranks is None else op.Concat(*scalars, axis=1), CHOSEN: chosen}
