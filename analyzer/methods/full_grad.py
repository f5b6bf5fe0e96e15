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

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.base import Arrays, Evaluation, Inputs
from analyzer.biases import Bias, find_biases, residual
from analyzer.completeness import Completeness, measure, sample_sums
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
    unplaced: tensors whose term has no place in the map, such as a last Dense layer's.
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
    terms: str = "all",
    align_corners: bool = True,
    epsilon: float = 1e-6,
) -> FullGrad:
    """Decompose the explained output into an input term and bias terms, and draw the saliency map.

    model: a model, or `differentiate(model, backend=…)`. inputs: (N, *features), or {input name: array}.
    target: see `Target`; None explains the highest logit of each sample.
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
    plan = plan_full_grad(fn, output, terms, align_corners=align_corners, epsilon=epsilon)
    result = plan.read(fn, fn.evaluate(plan.request, inputs, target))
    if isinstance(inputs, Mapping):
        return result
    (term,) = result.input_term.values()
    return replace(result, input_term=term)


@dataclass(frozen=True)
class FullGradPlan:
    """What FullGrad asks of a backend, and how its answer is read."""

    request: Request
    biases: tuple[Bias, ...]
    unplaced: tuple[str, ...]
    terms: str

    def read(self, fn: Differentiable, found: Evaluation) -> FullGrad:
        """The result from an evaluation of `request`; the input term by input name."""
        input_terms = {name: found.arrays[f"input/{name}"] for name in fn.differentiable_inputs}
        bias_terms = {bias.tensor: found.arrays[f"term/{bias.tensor}"] for bias in self.biases}
        return FullGrad(
            map=found.arrays["map"],
            input_term=input_terms,
            bias_terms=bias_terms,
            contributions=tuple(_contribution(bias, bias_terms[bias.tensor]) for bias in self.biases),
            completeness=_completeness(found.output, [*input_terms.values(), *bias_terms.values()]),
            target=found.target,
            terms=self.terms,
            unplaced=self.unplaced,
        )


def plan_full_grad(
    fn: Differentiable, output: str, terms: str = "all", *, align_corners: bool = True, epsilon: float = 1e-6
) -> FullGradPlan:
    """The biases of a model, and the request that decomposes its output and draws the map."""
    biases = find_biases(fn.graph, output, fn.differentiable_inputs, terms)
    inputs = fn.differentiable_inputs
    image = inputs[0]
    rank = len(fn.graph.tensors[image].shape or ())
    placed = {
        bias.tensor for bias in biases if rank > 2 and len(fn.graph.tensors[bias.tensor].shape or ()) == rank
    }

    def emit(op: Emitter, graph: Graph, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        results = {f"input/{name}": op.Mul(graph.tensors[name], gradients[name]) for name in inputs}
        map_terms = [Term(image, results[f"input/{image}"])]
        for bias in biases:
            r = residual(graph, op, bias.node, bias.active)
            assert r is not None
            term = op.Mul(gradients[bias.tensor], r)
            results[f"term/{bias.tensor}"] = term
            if bias.tensor in placed:
                map_terms.append(Term(bias.tensor, term))
        results["map"] = saliency_map(
            op, graph, map_terms, image, align_corners=align_corners, epsilon=epsilon
        )
        return results

    key = ("full_grad", output, terms, align_corners, epsilon)
    wrt = (*inputs, *(bias.tensor for bias in biases))
    unplaced = tuple(bias.tensor for bias in biases if bias.tensor not in placed)
    return FullGradPlan(Request(key, wrt, emit), biases, unplaced, terms)


def _contribution(bias: Bias, term: np.ndarray) -> Contribution:
    return Contribution(
        bias.tensor, bias.node.name, bias.node.op_type, bias.kind, bias.layer, sample_sums(term)
    )


def _completeness(output: np.ndarray, terms: Sequence[np.ndarray]) -> Completeness:
    total = np.sum([sample_sums(term) for term in terms], axis=0)
    absolute = np.sum([sample_sums(np.abs(term)) for term in terms], axis=0)
    return measure(output, total.astype(np.float64), absolute)
