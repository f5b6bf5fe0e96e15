"""Emit methods as ONNX: what `export_explainer` hands to the exporter of a method, and what it gets back.

Every method that can be one file has an exporter beside it, `@method(…, export=…)`: a function that takes an
ExplainerGraph and the settings, emits the method there, and returns an Exported. An ExplainerGraph has the model at its
inputs, with its gradients there (`evaluate`) and at any number of points (`repeated`). Refuses, with ExportError, what
is not known before a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from onnx import helper

from analyzer.autodiff.request import (
    CHOSEN,
    OUTPUT,
    Request,
    class_rows,
    class_seeds,
    full_program,
    masked,
    weights_seeds,
)
from analyzer.autodiff.sweep import check_gradient_paths, sweep
from analyzer.errors import ExportError
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor
from analyzer.graph.inlined import inlined
from converters.types import Shape

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.backends.bound import Bound

Draw = Literal["stored", "inside"]
PointsAt = Callable[[Builder, Tensor], Mapping[str, Tensor]]
"""From the numbers of points, (k,), to the points {tensor: (k, N, *features)}."""
Finish = Callable[[Builder, Tensor, Mapping[str, Tensor]], Mapping[str, Tensor]]
"""From the numbers of points and results {key: (k, N, …)} to what is summed or stacked, {key: (k, N, …)}."""


@dataclass(frozen=True)
class ExtraInput:
    """An input that the model does not have. role: "target", "baseline" or "noise"; of: the tensor that it is for.

    default: the value where nothing is fed.
    """

    tensor: Tensor
    default: np.ndarray
    role: str
    meaning: str
    of: str = ""


@dataclass(frozen=True)
class Hosted:
    """A method that cannot be one file: the reason, in a clause, and a method to export instead."""

    reason: str
    fix: str


@dataclass(frozen=True)
class Exported:
    """A method's results as tensors, by the name of the tensor that is attributed.

    total, absolute (N,): of methods whose attributions sum to the output, their sum and that of their sizes.
    delta (N,): of path methods, the sum less the difference of outputs.
    row_dependent: whether the API draws other numbers for each row of a batch, where the file has those of row 0.
    sized: whether the nodes are for the sizes of the example alone, but for the number of samples.
    """

    attributions: Mapping[str, Tensor]
    maps: Mapping[str, Tensor]
    signed: bool
    complete_maps: Mapping[str, Tensor] = field(default_factory=dict)
    total: Tensor | None = None
    absolute: Tensor | None = None
    delta: Tensor | None = None
    row_dependent: bool = False
    sized: bool = False


@dataclass(eq=False)
class ExplainerGraph:
    """An explainer while it is emitted.

    bound: the model at an example of its inputs, and the target. at_once: points that are evaluated together; None for
    all, where the batch is free. draw: whether noise is stored in the file or drawn by it. safe: keep a cotangent of 0
    at 0 (masking.py).
    """

    bound: Bound
    at_once: int | None = None
    draw: Draw = "stored"
    safe: bool = False
    extra: list[ExtraInput] = field(default_factory=list)

    def __post_init__(self) -> None:
        prefix = "explain/"
        while any(name.startswith(prefix) for name in self.graph.tensors):
            prefix = f"_{prefix}"
        self.prefix = prefix
        self.op = Builder(self.graph.opset, prefix=prefix)
        self.op.masked = self.safe

    @property
    def fn(self) -> Differentiable:
        """The model, at the sizes of the example."""
        return self.bound.fn

    @property
    def graph(self) -> Graph:
        """Its graph."""
        return self.fn.graph

    @cached_property
    def batch(self) -> int | str:
        """The number of samples, or the name of the axis where it is free."""
        names = batched_inputs(self.graph) or self.graph.inputs
        sizes = [(self.graph.tensors[name].shape or (None,))[0] for name in names]
        return next((size for size in sizes if isinstance(size, int)), sizes[0] or "batch")

    @property
    def has_free_batch(self) -> bool:
        """Whether the number of samples is free."""
        return isinstance(self.batch, str)

    def input(
        self,
        role: str,
        default: np.ndarray,
        shape: Shape,
        meaning: str,
        *,
        of: str = "",
        alone: bool = True,
    ) -> Tensor:
        """Add an input with a default. alone: whether it is the only one of its role, whose name is the role's."""
        name = self.free_name(role if alone else f"{role}/{of}")
        tensor = Tensor(name, default.dtype, shape)
        self.extra.append(ExtraInput(tensor, default, role, meaning, of))
        return tensor

    def free_name(self, name: str) -> str:
        """Return a name that no tensor of the model has."""
        while name in self.graph.tensors:
            name = f"_{name}"
        return name

    @cached_property
    def chosen(self) -> Tensor | None:
        """The class of each sample, (N,); None where weights are explained."""
        seed, op = self.bound.seed, self.op
        if seed.weights is not None:
            return None
        default = -1
        if seed.index is not None:
            if (seed.index != seed.index[0]).any():
                raise ExportError(
                    f"expected one class as the default of all samples, got {seed.index.tolist()[:8]}. Fix: give one "
                    "int as target, and feed `target` to the file for others"
                )
            default = int(seed.index[0])
        given = self.input(
            "target",
            np.array([default], np.int64),
            ("targets",),
            "the class to explain, one for each sample or one for all; -1 explains the highest score of each sample",
        )
        rows = self._rows
        count = op.Squeeze(op.Shape(rows, start=1, end=2), [0])
        # Gather refuses what is no class; below 0 it would count from the end.
        below = op.Where(op.Less(given, 0), count, given)
        wanted = op.Where(op.Equal(given, -1), op.ArgMax(rows, axis=1, keepdims=0), below)
        return op.Gather(op.Range(0, count, 1), wanted, axis=0)

    @cached_property
    def _rows(self) -> Tensor:
        return class_rows(self.op, self.graph, self.bound.seed.output)

    @cached_property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights over every output, each like it; empty where a class is explained."""
        seed = self.bound.seed
        if seed.weights is None:
            return {}
        found = {}
        for name, array in {seed.output: seed.weights, **seed.more}.items():
            if len(array) > 1 and (array != array[:1]).any():
                raise ExportError(
                    f"expected the same weights of {name!r} for all samples, got others for some. Fix: give weights "
                    "of one sample, Target(weights=array of the output's shape without the batch axis)"
                )
            found[name] = self.op.Expand(self.op.constant(array[:1]), self.op.Shape(self.graph.tensors[name]))
        return found

    @cached_property
    def _seeded(self) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if self.chosen is None:
            return weights_seeds(self.op, self.graph, self.weights)
        return class_seeds(self.op, self.graph, self.bound.seed.output, self._rows, self.chosen)

    @property
    def explained(self) -> Tensor:
        """The explained score of each sample, (N,)."""
        return self._seeded[1][OUTPUT]

    def of_request(self, request: Request) -> Request:
        """Return the request as this explainer runs it."""
        return masked(request) if self.safe else request

    def evaluate(self, request: Request, *, named: bool = False) -> Mapping[str, Tensor]:
        """Emit a request at the inputs, and return its results. named: whether the user named its tensors."""
        check_gradient_paths(self.graph, request.wrt, self.bound.seed.outputs, named=named)
        seeds, _ = self._seeded
        gradients = sweep(self.graph, self.op, {}, request.wrt, seeds[0])
        return request.emit(self.op, self.graph, gradients)

    def repeated(
        self,
        count: int,
        point: PointsAt,
        request: Request,
        finish: Finish,
        *,
        part: Differentiable | None = None,
        stacked: bool = False,
        one_by_one: bool = False,
    ) -> dict[str, Tensor]:
        """Emit a request at `count` points: the sums of its finished results (N, …), or stacked, (count, N, …).

        part: the part of the model that is run, default all of it. The score is the result OUTPUT.
        one_by_one: run one point after another, whatever `at_once` is.
        """
        run = _Run(self, part or self.fn, request, point, finish)
        check_gradient_paths(run.part.graph, request.wrt, self.bound.seed.outputs, named=False)
        alone = one_by_one or (self.at_once is None and not self.has_free_batch)
        most = 1 if alone else min(self.at_once or count, count)
        size = max(k for k in range(1, most + 1) if count % k == 0)
        if size > 1 and not self.has_free_batch:
            raise ExportError(
                f"expected a free batch axis to evaluate {size} points at once, got a fixed one. Fix: at_once=1 "
                "(--at-once 1), which runs them in a loop"
            )
        op = self.op
        prefix = op.fresh("points")
        if size == count:
            found = run.block(op, op.constant(np.arange(count)), f"{prefix}/")
            return dict(found) if stacked else {k: op.ReduceSum(t, [0], keepdims=0) for k, t in found.items()}
        return _looped(op, run, count, size, stacked, prefix)


@dataclass(frozen=True)
class _Run:
    """A request of a part of the model at points."""

    explainer: ExplainerGraph
    part: Differentiable
    request: Request
    point: PointsAt
    finish: Finish

    def block(self, op: Builder, numbers: Tensor, prefix: str) -> Mapping[str, Tensor]:
        """The finished results at the points of these numbers, (k, N, …)."""
        explainer, graph, seed = self.explainer, self.part.graph, self.explainer.bound.seed
        program = full_program(
            graph,
            explainer.of_request(self.request),
            seed.output,
            weights=seed.weights is not None,
            more=tuple(seed.more),
        )
        points = self.point(op, numbers)
        targets = {} if explainer.chosen is None else {"target": explainer.chosen}
        for place, (name, weights) in enumerate(explainer.weights.items()):
            targets["target" if place == 0 else f"target/{name}"] = weights
        batched = batched_inputs(explainer.graph)
        given: dict[str, Tensor] = {}
        for name in program.inputs:
            if name in points:
                given[name] = _flat(op, points[name])
            elif name in graph.tensors:
                held = explainer.graph.tensors[name]
                given[name] = _flat(op, _each(op, held, numbers)) if name in batched else held
            else:
                # The program may have put "_" before the name of its target.
                given[name] = _flat(op, _each(op, targets[name.lstrip("_")], numbers))
        found = inlined(op, explainer.graph, program, given, prefix)
        apart = {key: _apart(op, tensor, numbers) for key, tensor in found.items() if key != CHOSEN}
        return self.finish(op, numbers, apart)


def _looped(op: Builder, run: _Run, count: int, size: int, stacked: bool, prefix: str) -> dict[str, Tensor]:
    """The points in a Loop, `size` of them at a time."""
    inner = Builder(op.opset, prefix=f"{prefix}/")
    # A constant is stored once for the graph and its bodies.
    inner.initializers, inner._constants = op.initializers, op._constants
    inner.masked = op.masked
    turn, more = (
        Tensor(f"{prefix}/turn", np.dtype(np.int64), ()),
        Tensor(f"{prefix}/more", np.dtype(bool), ()),
    )
    numbers = inner.Add(inner.Mul(turn, size), inner.constant(np.arange(size)))
    found = run.block(inner, numbers, f"{prefix}/")
    going = inner.Identity(more)
    states = [] if stacked else [Tensor(f"{prefix}/sum/{key}", t.dtype) for key, t in found.items()]
    if stacked:
        results = [inner.Identity(tensor) for tensor in found.values()]
    else:
        results = [
            inner.Add(state, inner.ReduceSum(tensor, [0], keepdims=0))
            for state, tensor in zip(states, found.values(), strict=True)
        ]
    body = helper.make_graph(
        inner.nodes,
        prefix,
        [_info(one) for one in (turn, more, *states)],
        [_info(one) for one in (going, *results)],
    )
    start = [op.constant(np.zeros((), state.dtype)) for state in states]
    turns, yes = op.constant(np.array(count // size)), op.constant(np.array(True))
    ends = op.emit("Loop", [turns, yes, *start], outputs=len(results), body=body)
    ends = [ends] if len(results) == 1 else list(ends)
    whole = {key: replace(end, dtype=t.dtype) for (key, t), end in zip(found.items(), ends, strict=True)}
    if not stacked:
        return whole
    return {key: op.Reshape(t, op.Concat([-1], op.Shape(t, start=2), axis=0)) for key, t in whole.items()}


def _flat(op: Builder, points: Tensor) -> Tensor:
    """(k, N, …) as (k · N, …)."""
    return op.Reshape(points, op.Concat([-1], op.Shape(points, start=2), axis=0))


def _apart(op: Builder, rows: Tensor, numbers: Tensor) -> Tensor:
    """(k · N, …) as (k, N, …)."""
    return op.Reshape(rows, op.Concat(op.Shape(numbers), [-1], op.Shape(rows, start=1), axis=0))


def _each(op: Builder, held: Tensor, numbers: Tensor) -> Tensor:
    """The same values at each point: (N, …) as (k, N, …)."""
    return op.Expand(op.Unsqueeze(held, [0]), op.Concat(op.Shape(numbers), op.Shape(held), axis=0))


def _info(tensor: Tensor) -> Any:
    return helper.make_tensor_value_info(tensor.name, Builder.dtype_of(tensor), tensor.shape)


def column(op: Builder, numbers: Tensor, values: np.ndarray, like: Tensor, rank: int) -> Tensor:
    """Return the values of points, (k, 1, …) of `rank` + 1 axes, in the type of `like`. values: of all points."""
    chosen = op.Gather(op.constant(values.astype(like.dtype)), numbers, axis=0)
    return op.Reshape(chosen, [-1, *[1] * rank])


def rank_of(tensor: Tensor) -> int:
    """Return the number of axes. Raises ExportError where it is not known."""
    if tensor.shape is None:
        raise ExportError(f"expected a known number of axes of {tensor.name!r}, got none. Fix: give inputs=")
    return len(tensor.shape)


def reduced_map(op: Builder, attribution: Tensor, axis: int | None, *, signed: bool) -> Tensor:
    """Return the map of an attribution: over channels the sum, or without sign the largest size."""
    if axis is None:
        return attribution if signed else op.Abs(attribution)
    if signed:
        return op.ReduceSum(attribution, [axis], keepdims=0)
    return op.ReduceMax(op.Abs(attribution), [axis], keepdims=0)


def sample_total(op: Builder, arrays: Sequence[Tensor], *, sizes: bool = False) -> Tensor:
    """Return the sum of all elements of each sample, (N,), in double precision. sizes: of their absolute values."""
    double = helper.np_dtype_to_tensor_dtype(np.dtype(np.float64))
    sums = []
    for array in arrays:
        rows = op.Cast(op.Flatten(op.Abs(array) if sizes else array, axis=1), to=double)
        sums.append(op.ReduceSum(rows, [1], keepdims=0))
    return sums[0] if len(sums) == 1 else op.Sum(*sums)
