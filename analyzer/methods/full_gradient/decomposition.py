"""The full-gradient decomposition as one request: term sums, the two maps and, where asked for, the terms themselves.

f(x) = Σ_inputs ⟨x, ∂f/∂x⟩ + Σ_tensors Σ (∂f/∂y) ⊙ r, with the residual r of every node (analyzer/autodiff/biases.py).
Reads a model bound to a backend; everything is computed beside the gradients, and of a layer only its sums leave the
graph. Source: Srinivas & Fleuret 2019, eq. 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx

from analyzer.autodiff.biases import Bias, find_biases, residuals
from analyzer.autodiff.request import Request
from analyzer.autodiff.sweep import rules_of
from analyzer.backends import Differentiable
from analyzer.backends.bound import Bound, Evaluation
from analyzer.backends.caches import Cache
from analyzer.errors import AnalysisError
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor
from analyzer.methods.full_gradient.maps import PostProcessing, complete_map, everywhere, saliency_map
from analyzer.methods.full_gradient.stacks import stacked, totals
from analyzer.methods.full_gradient.term_sums import CellSums, cell_sums, laid_term
from analyzer.ops.masking import product
from analyzer.ops.support import onnx_dtype
from analyzer.placement.fixed_sizes import at_input_sizes, samples_laid_out
from analyzer.placement.terms import Placement, Placements, Spot, lay_out
from analyzer.types import Arrays

SUMS, MAGNITUDES, PLACED = "sums", "magnitudes", "placed sums"
"""Results with a column for each term: its sum, that of its absolute values, and that of its elements with a place."""


@dataclass(frozen=True)
class Settings:
    """What decides a decomposition. outputs: what the explained scalar is made of. explicit: the paper's own biases
    alone. gradients_alone: ∂f/∂y in place of its product with the bias, as Simple FullGrad has it. arrays: give the
    terms themselves, too. without: the tensors whose terms are left out. spatial: (root, its axes over which the map
    is drawn) where these are known; else the layers tell.
    """

    outputs: tuple[str, ...]
    roots: tuple[str, ...]
    explicit: bool
    psi: PostProcessing
    gradients_alone: bool = False
    arrays: bool = False
    without: frozenset[str] = frozenset()
    spatial: tuple[tuple[str, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class Plan:
    """The request for one model at one input shape, and what its results mean."""

    settings: Settings
    biases: tuple[Bias, ...]
    layout: Placements
    request: Request

    @property
    def placed(self) -> frozenset[str]:
        """The tensors whose terms have a place in the image."""
        return frozenset(name for name, place in self.layout.placements.items() if place.spots)

    def leftovers(self, found: Evaluation, totals: Arrays) -> list[np.ndarray]:
        """What elements without a cell add, such as a class token, of tensors of which the others have one."""
        return [
            totals[name] - self._column(found, name, PLACED, f"placed/{name}", partly_placed(self.layout))
            for name, placement in self.layout.placements.items()
            if placement.spots and placement.partial
        ]

    def maps(self, found: Evaluation, kind: str = "map") -> Arrays:
        """The map, or the "complete map", of every root."""
        return {root: found.arrays[f"{kind}/{root}"] for root in self.settings.roots}

    def totals(self, found: Evaluation, kind: str = "sum") -> Arrays:
        """The sum of every term, or of its "magnitude", (N,), roots first.

        Raises AnalysisError where samples cannot be told apart.
        """
        samples = found.output.shape[0]
        totals = {}
        stack, columns = {"sum": SUMS, "magnitude": MAGNITUDES}[kind], counted(self.layout)
        for name, placement in self.layout.placements.items():
            total = self._column(found, name, stack, f"{kind}/{name}", columns)
            if samples > 1 and not placement.separable:
                raise AnalysisError(
                    f"{name!r} has no axis of samples, and its term is the sum over {samples} of them. Fix: explain "
                    "one sample at a time, or name the other inputs in wrt"
                )
            # One output may speak of all samples together.
            totals[name] = total if samples > 1 else total.sum(keepdims=True)
        return totals

    @staticmethod
    def _column(found: Evaluation, name: str, stack: str, alone: str, columns: Sequence[str]) -> np.ndarray:
        """A number of each sample (N,): a column of a stacked result, or a result alone."""
        if name not in columns:
            return found.arrays[alone]
        column: np.ndarray = found.arrays[stack][:, columns.index(name)]
        return column

    def total(self, op: Builder, found: Mapping[str, Tensor], kind: str = "sum") -> Tensor:
        """Emit the sum of all terms, or of their "magnitude", (N,), from the results of the request."""
        stack = {"sum": SUMS, "magnitude": MAGNITUDES}[kind]
        parts = [op.ReduceSum(found[stack], [1], keepdims=0)] if stack in found else []
        parts += [found[key] for key in found if key.startswith(f"{kind}/")]
        return parts[0] if len(parts) == 1 else op.Sum(*parts)


PLANS: Cache[Plan] = Cache("plans of FullGrad")


def plan(bound: Bound, settings: Settings) -> Plan:
    """Find the biases of a model, place them in the image, and state the request. Plans are kept by the model."""
    sizes = tuple((name, array.shape[1:]) for name, array in bound.feeds.items())
    key = ("full-gradient", settings, sizes)
    return PLANS.get(bound.fn, key, lambda: _plan(bound.fn, bound.feeds, settings, key))


def _plan(fn: Differentiable, feeds: Arrays, settings: Settings, key: object) -> Plan:
    terms = "explicit" if settings.explicit else "all"
    every = find_biases(fn.graph, settings.outputs, settings.roots, terms)
    biases = tuple(bias for bias in every if bias.tensor not in settings.without)
    tensors = (*settings.roots, *(bias.tensor for bias in biases))
    layout = _layout(fn, feeds, settings, biases)

    def emit(op: Builder, graph: Graph, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return _emit(op, graph, gradients, biases, layout, settings)

    return Plan(settings, biases, layout, Request(key, tensors, emit))


def _layout(fn: Differentiable, feeds: Arrays, settings: Settings, biases: Sequence[Bias]) -> Placements:
    """Where every term stands. What is no layer's doing, such as a rounding error, has no place."""
    tensors = (*settings.roots, *(bias.tensor for bias in biases))
    # A target within the network may not depend on every root: each is laid out all the same.
    fixed = at_input_sizes(fn, feeds, (*settings.outputs, *settings.roots))
    known, samples = dict(settings.spatial), samples_laid_out(fn)
    layout = lay_out(fn.graph, fixed, fn.places, samples, settings.roots, tensors, known)
    nowhere = {bias.tensor for bias in biases if not rules_of(bias.node).placed}
    placements = {
        name: replace(place, spots=(), shown=False) if name in nowhere else place
        for name, place in layout.placements.items()
    }
    return replace(layout, placements=placements)


def form_of(maps: Arrays) -> Any:
    """The one map as an array; {root: map} for several roots."""
    return maps if len(maps) > 1 else next(iter(maps.values()))


def _emit(
    op: Builder,
    graph: Graph,
    gradients: Mapping[str, Tensor],
    biases: Sequence[Bias],
    layout: Placements,
    settings: Settings,
) -> dict[str, Tensor]:
    factors: dict[str, Tensor | None] = {name: graph.tensors[name] for name in settings.roots}
    factors |= _residuals(op, graph, biases, settings)
    # In a model of mixed precision each gradient has its tensor's; what is summed has one.
    dtype = max((gradients[name].dtype for name in factors), key=lambda one: one.itemsize)
    results: dict[str, Tensor] = {}
    terms: list[tuple[str, Spot, CellSums]] = []
    for name, factor in factors.items():
        place, gradient = layout.placements[name], _in(op, gradients[name], dtype)
        r = None if factor is None else _in(op, factor, dtype)
        # What nothing reads does not enter the program: most terms are never multiplied out.
        term = gradient if r is None else product(op, gradient, r)
        for spot in shown_spots(graph, layout, name, settings):
            laid = laid_term(op, place, spot, gradient, r, graph.tensors[name])
            terms.append((name, spot, cell_sums(op, laid, settings.psi)))
        if not counted_by_cell(place):
            rows = place.rows(op, term)
            results |= {f"sum/{name}": _total(op, rows), f"magnitude/{name}": _total(op, op.Abs(rows))}
        if name in settings.roots:
            results[f"input/{name}"] = term
        elif settings.arrays:
            results[f"term/{name}"] = term
    return results | _stacked_results(op, terms, layout, settings)


def _stacked_results(
    op: Builder, terms: Sequence[tuple[str, Spot, CellSums]], layout: Placements, settings: Settings
) -> dict[str, Tensor]:
    """The maps and the totals of terms, stacked by their grids."""
    names = [name for name, _, _ in terms]
    places = [layout.placements[name] for name in names]
    # The published map shows some tensors for the whole image that the complete one has no place for. What holds all
    # samples at once has one row.
    keys = [
        (spot.root, spot.grids, bool(place.spots), place.separable)
        for (_, spot, _), place in zip(terms, places, strict=True)
    ]
    stacks = stacked(op, [sums for _, _, sums in terms], keys, settings.psi)
    of_stack = [keys[stack.members[0]] for stack in stacks]
    results: dict[str, Tensor] = {}
    for root, sizes in layout.sizes.items():
        own = [(key[1:], stack) for key, stack in zip(of_stack, stacks, strict=True) if key[0] == root]
        salient = [(grids, stack.salient_layer(op)) for (grids, _, _), stack in own]
        signed = [(grids, stack.layer(op)) for (grids, placed, _), stack in own if placed]
        results[f"map/{root}"] = saliency_map(op, salient, sizes, settings.psi)
        results[f"complete map/{root}"] = complete_map(op, signed, sizes)
    stacks = [stack for stack in stacks if places[stack.members[0]].separable]
    order = [names[number] for stack in stacks for number in stack.members]
    for kind, wanted, options in (
        (SUMS, counted(layout), {}),
        (MAGNITUDES, counted(layout), {"absolute": True}),
        (PLACED, partly_placed(layout), {"placed": True}),
    ):
        if wanted:
            sums = totals(op, stacks, **options)
            columns = [order.index(name) for name in wanted]
            results[kind] = sums if columns == [*range(len(order))] else op.Gather(sums, columns, axis=1)
    for name, place in layout.placements.items():
        if place.spots and place.partial and not counted_by_cell(place):
            placed = [sums.signed for other, _, sums in terms if other == name]
            masses = placed[0] if len(placed) == 1 else op.Concat(*placed, axis=1)
            results[f"placed/{name}"] = _total(op, masses)
    return results


def counted_by_cell(place: Placement) -> bool:
    """Whether the sums by position of a tensor's only spot are sums of all its elements."""
    return place.separable and len(place.spots) == 1 and (place.spots[0].members is None or not place.partial)


def counted(layout: Placements) -> list[str]:
    """The tensors whose totals are columns of SUMS and MAGNITUDES, in order."""
    return [name for name, place in layout.placements.items() if counted_by_cell(place)]


def partly_placed(layout: Placements) -> list[str]:
    """The tensors of which what has a place is a column of PLACED, in order."""
    return [name for name in counted(layout) if layout.placements[name].partial]


def shown_spots(graph: Graph, layout: Placements, name: str, settings: Settings) -> tuple[Spot, ...]:
    """A tensor's spots in the saliency map.

    The published method spreads a convolution over one pixel evenly, and leaves out a dense layer over the same
    numbers. With all terms neither is shown: the map must not depend on which of them is written.
    """
    place = layout.placements[name]
    if not settings.explicit or place.spots or not place.separable or not place.shown:
        return place.spots
    own = graph.tensors[name].shape
    assert own is not None
    if sum(size != 1 for size in own[1:]) > 1 or place.blocks > 1:
        return ()
    return tuple(
        everywhere(place, root, sizes)
        for root, sizes in layout.sizes.items()
        if len(own) == len(graph.tensors[root].shape or ()) > 2 and name in graph.descendants([root])
    )


def _residuals(
    op: Builder, graph: Graph, biases: Sequence[Bias], settings: Settings
) -> dict[str, Tensor | None]:
    """What the gradient at every tensor that has a bias is multiplied by; None for 1."""
    if settings.gradients_alone:
        return {bias.tensor: None for bias in biases}
    by_node: dict[str, tuple[Tensor | None, ...]] = {}
    for bias in biases:
        if bias.node.name not in by_node:
            by_node[bias.node.name] = residuals(graph, op, bias.node, bias.active)
    return {bias.tensor: by_node[bias.node.name][bias.node.outputs.index(bias.tensor)] for bias in biases}


def _in(op: Builder, tensor: Tensor, dtype: np.dtype[Any]) -> Tensor:
    """A tensor in a dtype; a constant stays one."""
    if tensor.dtype == dtype:
        return tensor
    if tensor.constant is not None:
        return op.tensor(tensor.constant.astype(dtype))
    return op.Cast(tensor, to=onnx_dtype(dtype))


def _total(op: Builder, sums: Tensor) -> Tensor:
    """The sum of a sample in double precision: (N, cells) to (N,)."""
    return op.ReduceSum(op.Cast(sums, to=onnx.TensorProto.DOUBLE), [1], keepdims=0)
