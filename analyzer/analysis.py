"""Run methods over a batch, in pieces that fit into memory, and keep what tables and pictures need.

From a Differentiable, inputs and a target to one MethodResult a method: arrays, completeness, contributions
and the time taken. Bias terms themselves, often larger than the network, are not kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.methods import Contribution, SaliencyMap
    from analyzer.target import TargetLike

FULL_GRAD, INTEGRATED_GRADIENTS = "full-grad", "integrated-gradients"
SIMPLE_FULL_GRAD, SMOOTH_FULL_GRAD = "simple-full-grad", "smooth-full-grad"

# Of the output, or the rounding floor of its terms: float32 leaves about 1e-6.
FULL_GRAD_TOLERANCE = 1e-4
INTEGRATED_GRADIENTS_TOLERANCE = 0.01

Arrays = dict[str, np.ndarray]
Inputs = np.ndarray | Mapping[str, np.ndarray]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MethodResult:
    """One method over a whole batch.

    attributions: {input name: like the input}. maps: {input name: (N, *spatial)} where the method draws any.
    complete_maps: like them, the signed ones: their sums and `unplaced_total` (N,), that of the tensors `unplaced`,
    make `total`. explained, total, error (N,): completeness; total and error are None of a method that gives a map and
    no sum. passed: per sample, None where completeness is not claimed. input_totals, shares: what FullGrad sums, (N,).
    """

    method: str
    label: str
    attributions: Arrays
    maps: Arrays
    explained: np.ndarray
    total: np.ndarray | None
    error: np.ndarray | None
    passed: tuple[bool | None, ...]
    target: np.ndarray | None
    seconds: float
    note: str = ""
    complete_maps: Arrays = field(default_factory=dict)
    unplaced: tuple[str, ...] = ()
    unplaced_total: np.ndarray | None = None
    input_totals: Arrays = field(default_factory=dict)
    shares: tuple[Contribution, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


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
    for part, explained_part, _ in _parts(inputs, target, batch_size, progress):
        found = full_grad(fn, part, explained_part, **options)
        # The bias terms, often larger than the network, are computed when they are asked for: here they are not.
        pieces.append(replace(found, bias_terms={}, input_term=_named(fn, found.input_term)))
    contributions = [piece.contributions for piece in pieces]
    shares = tuple(
        replace(share, total=np.concatenate([piece[k].total for piece in contributions]))
        for k, share in enumerate(contributions[0])
    )
    completeness = [piece.completeness for piece in pieces]
    explained, total, error = (_joined(completeness, name) for name in ("output", "total", "error"))
    exact = np.concatenate([piece.within(FULL_GRAD_TOLERANCE) for piece in completeness])
    return MethodResult(
        method=FULL_GRAD,
        label=f"FullGrad, {terms} terms",
        attributions=_stacked([piece.input_term for piece in pieces]),
        maps=_stacked([_named(fn, piece.map) for piece in pieces]),
        complete_maps=_stacked([_named(fn, piece.complete_map) for piece in pieces]),
        unplaced=pieces[0].unplaced,
        unplaced_total=_joined(pieces, "unplaced_total"),
        explained=explained,
        total=total,
        error=error,
        passed=tuple(bool(fine) if terms == "all" else None for fine in exact),
        target=_joined_targets([piece.target for piece in pieces]),
        seconds=time.perf_counter() - start,
        input_totals=_stacked([piece.input_totals for piece in pieces]),
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
        for part, explained, _ in _parts(inputs, target, batch_size, progress)
    ]
    settings = {"post_processing": post_processing, "align_corners": align_corners}
    return _saliency(fn, SIMPLE_FULL_GRAD, "Simple FullGrad", pieces, settings, start)


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
        for part, explained, first in _parts(inputs, target, batch_size, progress)
    ]
    settings = {**options, "seed": seed, "post_processing": post_processing, "align_corners": align_corners}
    return _saliency(fn, SMOOTH_FULL_GRAD, f"Smooth FullGrad, {samples} copies", pieces, settings, start)


def _saliency(
    fn: Differentiable,
    method: str,
    label: str,
    pieces: Sequence[SaliencyMap],
    settings: Mapping[str, Any],
    start: float,
) -> MethodResult:
    """The result of a method that gives a map and nothing that adds up."""
    explained = _joined(pieces, "output")
    return MethodResult(
        method=method,
        label=label,
        attributions={},
        maps=_stacked([_named(fn, piece.map) for piece in pieces]),
        explained=explained,
        total=None,
        error=None,
        passed=(None,) * len(explained),
        target=_joined_targets([piece.target for piece in pieces]),
        seconds=time.perf_counter() - start,
        settings=settings,
    )


def run_integrated_gradients(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: Any = 0.0,
    steps: int = 50,
    rule: str = "gauss-legendre",
    tolerance: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> MethodResult:
    """Integrated Gradients of every sample.

    Completeness fails where a `tolerance` was asked for and not met. Without one it holds to 1 %, and
    beyond that is stated and not judged: it is a matter of steps.
    """
    from analyzer.methods import integrated_gradients

    start = time.perf_counter()
    found = integrated_gradients(
        fn,
        inputs,
        target,
        baseline=baseline,
        steps=steps,
        rule=rule,
        tolerance=tolerance,
        rng=np.random.default_rng(seed),
        progress=progress,
    )
    scale = np.maximum(np.abs(found.completeness.output), np.finfo(np.float32).eps)
    close = np.abs(found.delta) <= (tolerance or INTEGRATED_GRADIENTS_TOLERANCE) * scale
    unmet = None if tolerance is None else False
    return MethodResult(
        method=INTEGRATED_GRADIENTS,
        label=f"Integrated Gradients, {found.evaluations} gradients",
        attributions=_named(fn, found.attributions),
        maps={},
        explained=found.completeness.output,
        total=found.completeness.total,
        error=found.completeness.error,
        passed=tuple(True if fine else unmet for fine in close),
        target=found.target,
        seconds=time.perf_counter() - start,
        note="" if close.all() else "more steps, or a tolerance, bring the sum closer",
        settings={
            "steps": found.steps,
            "rule": rule,
            "baseline": baseline if isinstance(baseline, (str, float, int)) else "array",
            "evaluations": found.evaluations,
            "tolerance": tolerance,
        },
    )


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)


def _pieces(samples: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


def _parts(
    inputs: Inputs, target: TargetLike, size: int, progress: Progress | None
) -> Iterator[tuple[Inputs, TargetLike, int]]:
    """Pieces of a batch with their target and the number of their first sample; progress is told after each."""
    samples = _count(inputs)
    for rows in _pieces(samples, size):
        yield _rows(inputs, rows), _target_rows(target, rows, samples), rows.start
        if progress is not None:
            progress(rows.stop, samples)


def _rows(inputs: Inputs, rows: slice) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: array[rows] for name, array in inputs.items()}
    return inputs[rows]


def _target_rows(target: TargetLike, rows: slice, samples: int) -> TargetLike:
    """The part of a target of one class per sample; other targets hold for every sample."""
    if isinstance(target, np.ndarray) and target.ndim and len(target) == samples:
        return target[rows]
    return target


def _named(fn: Differentiable, value: Any) -> Arrays:
    """Attributions as {input name: array}, also where the inputs were one array."""
    return dict(value) if isinstance(value, Mapping) else {fn.differentiable_inputs[0]: value}


def _stacked(pieces: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _joined(pieces: Sequence[Any], name: str) -> np.ndarray:
    return np.concatenate([np.atleast_1d(getattr(piece, name)) for piece in pieces]).astype(np.float64)


def _joined_targets(targets: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [np.asarray(target) for target in targets if target is not None]
    return np.concatenate(known) if len(known) == len(targets) else None
