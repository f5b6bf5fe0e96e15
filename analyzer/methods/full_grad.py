"""FullGrad: an output as the sum of an input term and one bias term per layer, and its saliency map.

Source: Srinivas & Fleuret 2019, "Full-Gradient Representation for Neural Network Visualization". The paper's
decomposition covers the biases that layers add; `terms="all"` adds the residual of every non-linear
node (analyzer/biases.py), and is complete on every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.autodiff import rules_of
from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.base import Arrays, Evaluation, Inputs
from analyzer.biases import Bias, find_biases, residuals
from analyzer.completeness import Completeness, measure
from analyzer.emitter import Emitter
from analyzer.errors import AnalysisError
from analyzer.graph import Graph, Tensor
from analyzer.methods.saliency import Term, saliency_map
from analyzer.request import Request
from analyzer.target import TargetLike, as_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Contribution:
    """One node's share of the output. total: (N,), the signed sum of its bias term, in the output's units.

    kind: "explicit" for a bias that the layer adds, "implicit" for the residual of a non-linear node.
    """

    tensor: str
    node: str
    op_type: str
    kind: str
    layer: str
    total: np.ndarray


@dataclass(frozen=True)
class FullGrad:
    """The decomposition of the explained output, and its map.

    map: (N, *spatial), the published saliency map; (N, features) where the input has no spatial axes.
    input_term: inputs ⊙ ∂f/∂inputs, in the form of the inputs. bias_terms: {tensor: (∂f/∂y) ⊙ r}, shaped like
    the tensor. contributions: their sums, in graph order. All are in the units of the output.
    unplaced: tensors whose term has no place in the map, such as a last Dense layer's, or a rounding error.
    """

    map: np.ndarray
    input_term: Any
    bias_terms: Arrays
    contributions: tuple[Contribution, ...]
    completeness: Completeness
    target: np.ndarray | None
    terms: str
    unplaced: tuple[str, ...]

    def plot(self, images: np.ndarray | None = None) -> Figure:
        """The map over the images, one column a sample."""
        from analyzer.figures import plot_maps

        return plot_maps(self.map, images, signed=False, title="FullGrad")


def full_grad(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Sequence[str] | None = None,
    terms: str = "all",
    align_corners: bool = True,
    epsilon: float = 1e-6,
) -> FullGrad:
    """Decompose the explained output into an input term and bias terms, and draw the saliency map.

    model: a model, or `differentiate(model, backend=…)`. inputs: (N, *features), or {input name: array}.
    target: see `Target`; None explains the highest logit of each sample.
    wrt: the tensors that the output is decomposed from, such as the embedded tokens of a text model; default the
        floating inputs. The input term then comes by tensor name.
    terms: "all" is complete on every architecture; "explicit" takes the paper's own biases alone and
        leaves a shortfall, which `completeness` states.
    align_corners, epsilon: of the published post-processing, |·| rescaled to [0, 1] per sample, resized
        bilinearly, summed over channels and layers.
    Raises InputError, ShapeError, TargetError, UnsupportedOp.
    Source: Srinivas & Fleuret 2019, eq. 3 (decomposition) and eq. 4 (saliency).
    """
    if terms not in ("all", "explicit"):
        raise AnalysisError(f'terms is "all" or "explicit", not {terms!r}')
    fn = differentiate(model)
    output = as_target(target).output or fn.graph.outputs[0]
    fn.check_inputs(inputs)
    fn.check_target(output)
    plan = plan_full_grad(fn, output, terms, wrt, align_corners=align_corners, epsilon=epsilon)
    result = plan.read(fn, fn.evaluate(plan.request, inputs, target))
    if isinstance(inputs, Mapping) or wrt is not None:
        return result
    (term,) = result.input_term.values()
    return replace(result, input_term=term)


@dataclass(frozen=True)
class FullGradPlan:
    """What FullGrad asks of a backend, and how its answer is read."""

    request: Request
    roots: tuple[str, ...]
    biases: tuple[Bias, ...]
    unplaced: tuple[str, ...]
    terms: str

    def read(self, fn: Differentiable, found: Evaluation) -> FullGrad:
        """The result from an evaluation of `request`; the input term by name."""
        input_terms = {name: found.arrays[f"input/{name}"] for name in self.roots}
        bias_terms = {bias.tensor: found.arrays[f"term/{bias.tensor}"] for bias in self.biases}
        terms, samples = {**input_terms, **bias_terms}, found.output.shape[0]
        totals = _sample_sums(fn, terms, input_terms, samples)
        magnitudes = {name: np.abs(term) for name, term in terms.items()}
        absolute = _sample_sums(fn, magnitudes, input_terms, samples)
        return FullGrad(
            map=found.arrays["map"],
            input_term=input_terms,
            bias_terms=bias_terms,
            contributions=tuple(_contribution(bias, totals[bias.tensor]) for bias in self.biases),
            completeness=measure(
                found.output, np.sum([*totals.values()], axis=0), np.sum([*absolute.values()], axis=0)
            ),
            target=found.target,
            terms=self.terms,
            unplaced=self.unplaced,
        )


def plan_full_grad(
    fn: Differentiable,
    output: str,
    terms: str = "all",
    wrt: Sequence[str] | None = None,
    *,
    align_corners: bool = True,
    epsilon: float = 1e-6,
) -> FullGradPlan:
    """The biases of a model, and the request that decomposes its output and draws the map."""
    inputs = fn.roots(wrt)
    biases = find_biases(fn.graph, output, inputs, terms)
    image = inputs[0]
    placed = {
        bias.tensor
        for bias in biases
        if rules_of(bias.node).placed and _has_place(fn.graph, bias.tensor, image)
    }

    def emit(op: Emitter, graph: Graph, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        results = {f"input/{name}": op.Mul(graph.tensors[name], gradients[name]) for name in inputs}
        map_terms = [Term(image, results[f"input/{image}"])]
        by_node: dict[str, tuple[Tensor | None, ...]] = {}
        for bias in biases:
            if bias.node.name not in by_node:
                by_node[bias.node.name] = residuals(graph, op, bias.node, bias.active)
            r = by_node[bias.node.name][bias.node.outputs.index(bias.tensor)]
            assert r is not None
            term = op.Mul(gradients[bias.tensor], r)
            results[f"term/{bias.tensor}"] = term
            if bias.tensor in placed:
                map_terms.append(Term(bias.tensor, term))
        results["map"] = saliency_map(
            op, graph, map_terms, image, align_corners=align_corners, epsilon=epsilon
        )
        return results

    key = ("full_grad", output, terms, inputs, align_corners, epsilon)
    measured = (*inputs, *(bias.tensor for bias in biases))
    unplaced = tuple(bias.tensor for bias in biases if bias.tensor not in placed)
    return FullGradPlan(Request(key, measured, emit), inputs, biases, unplaced, terms)


def _has_place(graph: Graph, tensor: str, image: str) -> bool:
    """Whether a tensor has the image's axes: as many of them, and the same samples along the first."""
    like, own = graph.tensors[image].shape or (), graph.tensors[tensor].shape or ()
    return len(own) == len(like) > 2 and own[0] == like[0]


def _contribution(bias: Bias, total: np.ndarray) -> Contribution:
    return Contribution(bias.tensor, bias.node.name, bias.node.op_type, bias.kind, bias.layer, total)


def _sample_sums(fn: Differentiable, terms: Arrays, inputs: Arrays, samples: int) -> Arrays:
    """The sum of each term over each sample, (N,). Raises AnalysisError where samples cannot be told apart."""
    if samples == 1:
        return {name: term.sum(dtype=np.float64, keepdims=True).reshape(1) for name, term in terms.items()}
    places = fn.places
    sizes = {
        axis: size
        for name, array in inputs.items()
        for axis, size in zip(fn.graph.tensors[name].shape or (), array.shape, strict=True)
        if isinstance(axis, str)
    }
    lost = next((name for name in terms if name not in places), None)
    if lost is not None:
        raise AnalysisError(
            f"which part of {lost!r} belongs to which sample cannot be told: explain one sample at a time"
        )
    return {name: places[name].sums(term, samples, sizes) for name, term in terms.items()}
