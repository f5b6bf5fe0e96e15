"""FullGrad and its two variants over a batch. Bias terms, often larger than the network, are not kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analyzer.analysis.common import doubles, named, saliency_result, tensors_of
from analyzer.analysis.result import Inputs, MethodResult, Progress

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.target.target import TargetLike

FULL_GRAD = "full-grad"
SIMPLE_FULL_GRAD, SMOOTH_FULL_GRAD = "simple-full-grad", "smooth-full-grad"

# Of the output, or the rounding floor of its terms: float32 leaves about 1e-6.
FULL_GRAD_TOLERANCE = 1e-4


def run_full_grad(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    wrt: Sequence[str] | None = None,
    terms: str = "all",
    post_processing: str = "paper",
    align_corners: bool | None = None,
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
    tensors = tensors_of(fn, wrt)
    found = full_grad(fn, inputs, target, wrt=tensors, progress=progress, **options)
    exact = found.completeness.within(FULL_GRAD_TOLERANCE)
    return MethodResult(
        method=FULL_GRAD,
        label=f"FullGrad, {terms} terms",
        attributions=named(fn, found.input_term, tensors),
        maps=named(fn, found.map, tensors),
        complete_maps=named(fn, found.complete_map, tensors),
        unplaced=found.unplaced,
        unplaced_total=doubles(found.unplaced_total),
        output=doubles(found.completeness.output),
        explained=doubles(found.completeness.output),
        total=doubles(found.completeness.total),
        error=doubles(found.completeness.error),
        passed=tuple(bool(fine) if terms == "all" else None for fine in exact),
        target=found.target,
        seconds=time.perf_counter() - start,
        input_totals=found.input_totals,
        shares=found.contributions,
        note="" if terms == "all" else "the biases of the layers alone, as published",
        settings=options | {"wrt": tensors},
    )


def run_simple_full_grad(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    post_processing: str = "paper",
    align_corners: bool | None = None,
    progress: Progress | None = None,
) -> MethodResult:
    """Simple FullGrad's map of every sample."""
    from analyzer.methods import simple_full_grad
    from analyzer.methods.full_grad import post_processing_of

    start = time.perf_counter()
    psi = post_processing_of(post_processing, align_corners, None)
    found = simple_full_grad(fn, inputs, target, post_processing=psi, progress=progress)
    settings = {"post_processing": post_processing, "align_corners": align_corners}
    return saliency_result(fn, SIMPLE_FULL_GRAD, "Simple FullGrad", found, settings, start)


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
    progress: Progress | None = None,
) -> MethodResult:
    """Smooth FullGrad's map of every sample."""
    from analyzer.methods import smooth_full_grad
    from analyzer.methods.full_grad import post_processing_of

    start = time.perf_counter()
    psi = post_processing_of(post_processing, align_corners, None)
    options: dict[str, Any] = {"samples": samples, "noise": noise, "terms": terms}
    found = smooth_full_grad(fn, inputs, target, seed=seed, post_processing=psi, progress=progress, **options)
    settings = {**options, "seed": seed, "post_processing": post_processing, "align_corners": align_corners}
    return saliency_result(fn, SMOOTH_FULL_GRAD, f"Smooth FullGrad, {samples} copies", found, settings, start)
