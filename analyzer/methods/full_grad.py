"""FullGrad: an output as the sum of an input term and one bias term per layer, and its maps.

Source: Srinivas & Fleuret 2019, "Full-Gradient Representation for Neural Network Visualization". The paper's
decomposition covers the biases that layers add; `terms="all"` adds the residual of every non-linear
node (analyzer/autodiff/biases.py), and is complete on every architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.backends.bound import Bound, Evaluation
from analyzer.errors import AnalysisError, ExportError
from analyzer.methods.completeness import measure
from analyzer.methods.exporting import ExplainerGraph, Exported
from analyzer.methods.full_gradient.decomposition import Plan, Settings, form_of, plan
from analyzer.methods.full_gradient.maps import PUBLISHED, PYTORCH_GRAD_CAM, PostProcessing
from analyzer.methods.full_gradient.result import Contribution, FullGrad, Terms
from analyzer.methods.registry import method
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Inputs, Names, Progress

TermKinds = Literal["all", "explicit"]
Psi = Literal["paper", "pytorch-grad-cam"]
POST_PROCESSING: Mapping[str, PostProcessing] = {"paper": PUBLISHED, "pytorch-grad-cam": PYTORCH_GRAD_CAM}


def _export(
    explainer: ExplainerGraph,
    *,
    wrt: Names | None,
    terms: TermKinds,
    post_processing: Psi | PostProcessing,
    align_corners: bool | None,
    epsilon: float | None,
) -> Exported:
    refuse_terms(terms)
    psi = post_processing_of(post_processing, align_corners, epsilon)
    roots = explainer.fn.roots(wrt)
    made = plan(explainer.bound, Settings(explainer.bound.seed.outputs, roots, terms == "explicit", psi))
    found = explainer.evaluate(made.request, named=wrt is not None)
    refuse_merged(explainer, made)
    op = explainer.op
    parts = {
        kind: [found[f"{kind}/{name}"] for name in made.layout.placements] for kind in ("sum", "magnitude")
    }
    return Exported(
        {root: found[f"input/{root}"] for root in roots},
        {root: found[f"map/{root}"] for root in roots},
        signed=False,
        complete_maps={root: found[f"complete map/{root}"] for root in roots},
        total=op.Sum(*parts["sum"]),
        absolute=op.Sum(*parts["magnitude"]),
        sized=True,
    )


def refuse_merged(explainer: ExplainerGraph, made: Plan) -> None:
    """Raise ExportError where the samples of a batch cannot be told apart in a term."""
    merged = [name for name, place in made.layout.placements.items() if not place.separable]
    if merged and explainer.has_free_batch:
        raise ExportError(
            f"expected an axis of samples in {merged[0]!r}, found none: its term is that of all samples together. "
            'Fix: export method="gradient" or "integrated-gradients", or give the model a fixed batch of 1'
        )


@method(
    "full-grad",
    export=_export,
    line="where all layers look; its terms sum to the output",
    caption="FullGrad",
    note="input term and bias terms by size, without sign",
    source="Srinivas & Fleuret 2019, eq. 3 and 4",
    cost="1 gradient",
)
def full_grad(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Names | None = None,
    terms: TermKinds = "all",
    post_processing: Psi | PostProcessing = "paper",
    align_corners: bool | None = None,
    epsilon: float | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> FullGrad:
    """Decompose the explained output into an input term and bias terms, and draw its maps.

    model: a model, or `differentiate(model, backend=…)`.
    inputs: (N, *features), or {input name: array}.
    target: see `Target`; None explains the highest logit of each sample.
    wrt: the tensors from which the output is decomposed, such as "embedding" of a text model. Default: the floating
        inputs. With `wrt` the input term is {tensor: array}.
    terms: "all" bias terms are complete on every architecture; "explicit" takes the published ones alone, the biases
        of layers, and leaves a shortfall, which `completeness` states.
    post_processing: post-processing ψ of the saliency map. "paper": |·| rescaled to [0, 1] per sample, resized
        bilinearly with aligned corners, summed over channels and layers. "pytorch-grad-cam": as in that library,
        rescaled per channel.
    align_corners: align corners in the bilinear resizing of maps. Default: as ψ is published.
    epsilon: number added to the divisor of ψ's rescaling. Default: as ψ is published.
    progress: called with the samples done and all.
    verify: compare the model's .onnx file with what is explained, as for `differentiate`.
    Raises InputError, ShapeError, TargetError, UnsupportedOp; AnalysisError where the samples of a batch cannot
    be told apart in some tensor.
    Source: Srinivas & Fleuret 2019, eq. 3 (decomposition) and eq. 4 (saliency).
    """
    refuse_terms(terms)
    fn = differentiate(model, verify=verify)
    bound = fn.bind(inputs, target)
    psi = post_processing_of(post_processing, align_corners, epsilon)
    made = plan(bound, Settings(bound.seed.outputs, fn.roots(wrt), terms == "explicit", psi))
    found = bound.evaluate(made.request, progress=progress)
    result = read_full_grad(made, found, terms_of(bound.holding(found.target), made))
    return result.with_single_input() if bound.feeds.single and wrt is None else result


def refuse_terms(terms: str) -> None:
    """Raise AnalysisError for unknown terms."""
    if terms not in ("all", "explicit"):
        raise AnalysisError(f'unknown terms={terms!r}. Fix: give "all" or "explicit"')


def read_full_grad(made: Plan, found: Evaluation, bias_terms: Mapping[str, np.ndarray]) -> FullGrad:
    """The result of a plan's request, the input term by name."""
    totals, magnitudes = made.totals(found), made.totals(found, "magnitude")
    placed, roots = made.placed, made.settings.roots
    unplaced = tuple(name for name in totals if name not in placed)
    if len({total.shape for total in totals.values()}) > 1:
        rows = {name: len(total) for name, total in totals.items()}
        apart = min(rows, key=lambda name: rows[name])
        raise AnalysisError(
            f"the term of {apart!r} cannot be told apart by sample: a constant or a node holds all samples at once. "
            "Fix: give the model a free batch axis"
        )
    return FullGrad(
        attributions={name: found.arrays[f"input/{name}"] for name in roots},
        maps=form_of(made.maps(found)),
        complete_map=form_of(made.maps(found, "complete map")),
        output=found.output,
        signed=False,
        wrt=tuple(roots),
        input_totals={name: totals[name] for name in roots},
        bias_terms=bias_terms,
        contributions=tuple(
            Contribution(
                b.tensor, b.node.name, b.node.op_type, b.kind, b.layer, totals[b.tensor], b.tensor in placed
            )
            for b in made.biases
        ),
        completeness=measure(
            found.output, np.sum([*totals.values()], axis=0), np.sum([*magnitudes.values()], axis=0)
        ),
        target=found.target,
        terms="explicit" if made.settings.explicit else "all",
        unplaced=unplaced,
        unplaced_total=np.sum([totals[name] for name in unplaced] + made.leftovers(found, totals), axis=0)
        + np.zeros(found.output.shape),
    )


def terms_of(bound: Bound, made: Plan) -> Terms:
    """The bias terms of what was explained, to be computed when they are asked for."""

    def compute() -> Arrays:
        arrays = bound.evaluate(plan(bound, replace(made.settings, arrays=True)).request).arrays
        return {bias.tensor: arrays[f"term/{bias.tensor}"] for bias in made.biases}

    return Terms(tuple(bias.tensor for bias in made.biases), compute)


def post_processing_of(
    chosen: str | PostProcessing, align_corners: bool | None, epsilon: float | None
) -> PostProcessing:
    """ψ by its name, with options in place of its own. Raises AnalysisError for an unknown name."""
    if not isinstance(chosen, PostProcessing):
        if chosen not in POST_PROCESSING:
            raise AnalysisError(
                f"unknown post_processing {chosen!r}. Fix: choose from {', '.join(POST_PROCESSING)}"
            )
        chosen = POST_PROCESSING[chosen]
    if align_corners is not None:
        chosen = replace(chosen, align_corners=align_corners)
    return chosen if epsilon is None else replace(chosen, epsilon=epsilon)
