"""FullGrad and its two variants over a batch. Bias terms, often larger than the network, are not kept."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.analysis.pieces import joined, joined_targets, named, parts, saliency_result, stacked
from analyzer.analysis.result import Inputs, MethodResult, Progress

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.target import TargetLike

FULL_GRAD = "full-grad"
SIMPLE_FULL_GRAD, SMOOTH_FULL_GRAD = "simple-full-grad", "smooth-full-grad"

# Of the output, or the rounding floor of its terms: float32 leaves about 1e-6.
FULL_GRAD_TOLERANCE = 1e-4


def run_full_grad(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    terms: str = "all",
    post_processing: str = "paper",
    align_corners: bool | None = None,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> MethodResult:
    """FullGrad of every sample. Completeness is claimed for `terms="all"` alone."""
    from analyzer.methods import full_grad

    start = time.perf_counter()
    options: dict[str, Any] = {
        "terms": terms,
        "post_processing": post_processing,
        "align_corners": align_corners,
    }
    pieces = []
    for part, explained_part, _ in parts(inputs, target, batch_size, progress):
        found = full_grad(fn, part, explained_part, **options)
        # The bias terms, often larger than the network, are computed when they are asked for: here they are not.
        pieces.append(replace(found, bias_terms={}, input_term=named(fn, found.input_term)))
    contributions = [piece.contributions for piece in pieces]
    shares = tuple(
        replace(share, total=np.concatenate([piece[k].total for piece in contributions]))
        for k, share in enumerate(contributions[0])
    )
    completeness = [piece.completeness for piece in pieces]
    explained, total, error = (joined(completeness, name) for name in ("output", "total", "error"))
    exact = np.concatenate([piece.within(FULL_GRAD_TOLERANCE) for piece in completeness])
    return MethodResult(
        method=FULL_GRAD,
        label=f"FullGrad, {terms} terms",
        attributions=stacked([piece.input_term for piece in pieces]),
        maps=stacked([named(fn, piece.map) for piece in pieces]),
        complete_maps=stacked([named(fn, piece.complete_map) for piece in pieces]),
        unplaced=pieces[0].unplaced,
        unplaced_total=joined(pieces, "unplaced_total"),
        explained=explained,
        total=total,
        error=error,
        passed=tuple(bool(fine) if terms == "all" else None for fine in exact),
        target=joined_targets([piece.target for piece in pieces]),
        seconds=time.perf_counter() - start,
        input_totals=stacked([piece.input_totals for piece in pieces]),
        shares=shares,
        note="" if terms == "all" else "the biases of the layers alone, as published",
        settings=options,
    )


def run_simple_full_grad(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    post_processing: str = "paper",
    align_corners: bool | None = None,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> MethodResult:
    """Simple FullGrad's map of every sample."""
    from analyzer.methods import simple_full_grad
    from analyzer.methods.full_grad import post_processing_of

    start = time.perf_counter()
    psi = post_processing_of(post_processing, align_corners, None)
    pieces = [
        simple_full_grad(fn, part, explained, post_processing=psi)
        for part, explained, _ in parts(inputs, target, batch_size, progress)
    ]
    settings = {"post_processing": post_processing, "align_corners": align_corners}
    return saliency_result(fn, SIMPLE_FULL_GRAD, "Simple FullGrad", pieces, settings, start)


def run_smooth_full_grad(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    terms: str = "all",
    post_processing: str = "paper",
    align_corners: bool | None = None,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> MethodResult:
    """Smooth FullGrad's map of every sample. A piece of the batch draws its noise from `seed` + its first sample."""
    from analyzer.methods import smooth_full_grad
    from analyzer.methods.full_grad import post_processing_of

    start = time.perf_counter()
    psi = post_processing_of(post_processing, align_corners, None)
    options: dict[str, Any] = {"samples": samples, "noise": noise, "terms": terms}
    pieces = [
        smooth_full_grad(fn, part, explained, seed=seed + first, post_processing=psi, **options)
        for part, explained, first in parts(inputs, target, batch_size, progress)
    ]
    settings = {**options, "seed": seed, "post_processing": post_processing, "align_corners": align_corners}
    return saliency_result(
        fn, SMOOTH_FULL_GRAD, f"Smooth FullGrad, {samples} copies", pieces, settings, start
    )
