"""Methods along other paths than the straight line from one baseline, over a batch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.analysis.common import baseline_text, doubles, named
from analyzer.analysis.integrated import INTEGRATED_GRADIENTS_TOLERANCE
from analyzer.analysis.result import Inputs, MethodResult, Progress
from analyzer.errors import AnalysisError

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.methods.paths.blur import Border
    from analyzer.methods.paths.path_result import PathAttributions
    from analyzer.target.target import TargetLike

EXPECTED_GRADIENTS, BLUR_IG, GUIDED_IG, XRAI = "expected-gradients", "blur-ig", "guided-ig", "xrai"


def run_expected_gradients(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    background: np.ndarray | Mapping[str, np.ndarray] | None = None,
    samples: int = 200,
    seed: int = 0,
    progress: Progress | None = None,
) -> MethodResult:
    """Expected Gradients of every sample; the note says how far chance moves the sum.

    Raises AnalysisError where there is no background.
    """
    from analyzer.methods import expected_gradients

    if background is None:
        raise AnalysisError(
            "expected-gradients averages over a data set of baselines. Fix: give it as background=array "
            "(--background FILE)"
        )
    start = time.perf_counter()
    found = expected_gradients(
        fn, inputs, target, background, samples=samples, rng=np.random.default_rng(seed), progress=progress
    )
    return _result(
        fn,
        EXPECTED_GRADIENTS,
        f"Expected Gradients, {samples} draws from {found.background} baselines",
        found,
        {"samples": samples, "background": found.background, "seed": seed},
        start,
        note=f"a sum of draws, with a standard error of {found.delta_error.max():.2g}: more samples bring it closer",
    )


def run_blur_ig(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    max_sigma: float = 50.0,
    steps: int = 100,
    rule: str = "gauss-legendre",
    border: Border = "edge",
    progress: Progress | None = None,
) -> MethodResult:
    """Blur Integrated Gradients of every sample."""
    from analyzer.methods import blur_integrated_gradients

    start = time.perf_counter()
    settings: dict[str, Any] = {"max_sigma": max_sigma, "steps": steps, "rule": rule, "border": border}
    found = blur_integrated_gradients(fn, inputs, target, progress=progress, **settings)
    label = f"Blur Integrated Gradients, {found.evaluations} gradients"
    return _result(fn, BLUR_IG, label, found, settings, start)


def run_guided_ig(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: Any = 0.0,
    steps: int = 200,
    fraction: float = 0.25,
    max_dist: float = 0.02,
    anchors: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> MethodResult:
    """Guided Integrated Gradients of every sample."""
    from analyzer.methods import guided_integrated_gradients

    start = time.perf_counter()
    path: dict[str, Any] = {"steps": steps, "fraction": fraction, "max_dist": max_dist, "anchors": anchors}
    found = guided_integrated_gradients(
        fn, inputs, target, baseline=baseline, rng=np.random.default_rng(seed), progress=progress, **path
    )
    label = f"Guided Integrated Gradients, {found.evaluations} gradients"
    settings = {**path, "baseline": baseline_text(baseline), "rule": found.settings.rule, "seed": seed}
    return _result(fn, GUIDED_IG, label, found, settings, start)


def run_xrai(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: Any = ("black", "white"),
    steps: int = 100,
    min_pixels: int = 50,
    seed: int = 0,
    progress: Progress | None = None,
) -> MethodResult:
    """XRAI's map of every sample, of Integrated Gradients from black and from white, or from other baselines."""
    from analyzer.methods import xrai

    start = time.perf_counter()
    found = xrai(
        fn,
        inputs,
        target,
        baseline=baseline,
        steps=steps,
        min_pixels=min_pixels,
        rng=np.random.default_rng(seed),
        progress=progress,
    )
    regions = ", ".join(str(count) for count in found.ranks.max(axis=(1, 2)))
    return MethodResult(
        method=XRAI,
        label=f"XRAI, {regions} regions",
        attributions={},
        maps=named(fn, found.map),
        output=doubles(found.output),
        explained=doubles(found.output),
        total=None,
        error=None,
        passed=(None,) * len(found.output),
        target=found.target,
        seconds=time.perf_counter() - start,
        settings={
            "steps": steps,
            "baseline": baseline_text(baseline),
            "min_pixels": min_pixels,
            "seed": seed,
        },
    )


def _result(
    fn: Differentiable,
    method: str,
    label: str,
    found: PathAttributions,
    settings: Mapping[str, Any],
    start: float,
    note: str = "more steps bring the sum closer",
) -> MethodResult:
    """Completeness as of Integrated Gradients: it holds to 1 %, and beyond that is stated and not judged."""
    close = found.completeness.within(INTEGRATED_GRADIENTS_TOLERANCE)
    return MethodResult(
        method=method,
        label=label,
        attributions=named(fn, found.attributions),
        maps={},
        channel_axes=found.channel_axes,
        output=doubles(found.output),
        explained=found.completeness.output,
        total=found.completeness.total,
        error=found.completeness.error,
        passed=tuple(True if fine else None for fine in close),
        target=found.target,
        seconds=time.perf_counter() - start,
        note="" if close.all() else note,
        settings={**settings, "evaluations": found.evaluations},
    )
