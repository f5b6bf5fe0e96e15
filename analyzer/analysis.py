"""Run methods over a batch, in pieces that fit into memory, and keep what tables and pictures need.

From a Differentiable, inputs and a target to one MethodResult a method: arrays, completeness, contributions
and the time taken. Bias terms themselves, often larger than the network, are not kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.methods import Contribution
    from analyzer.target import TargetLike

FULL_GRAD, INTEGRATED_GRADIENTS = "full-grad", "integrated-gradients"

# Of the output, or the rounding floor of its terms: float32 leaves about 1e-6.
FULL_GRAD_TOLERANCE = 1e-4
INTEGRATED_GRADIENTS_TOLERANCE = 0.01

Arrays = dict[str, np.ndarray]
Inputs = np.ndarray | Mapping[str, np.ndarray]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class MethodResult:
    """One method over a whole batch.

    attributions: {input name: like the input}. map: (N, H, W) where the method draws one, {input name: map}
    for several inputs. explained, total,
    error (N,): completeness. passed: per sample, None where completeness is not claimed.
    """

    method: str
    label: str
    attributions: Arrays
    map: Any
    explained: np.ndarray
    total: np.ndarray
    error: np.ndarray
    passed: tuple[bool | None, ...]
    target: np.ndarray | None
    seconds: float
    note: str = ""
    shares: tuple[Contribution, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def run_full_grad(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    terms: str = "all",
    batch_size: int = 4,
    progress: Progress | None = None,
) -> MethodResult:
    """FullGrad of every sample. Completeness is claimed for `terms="all"` alone."""
    from analyzer.methods import full_grad

    start = time.perf_counter()
    pieces = []
    samples = _count(inputs)
    for rows in _pieces(samples, batch_size):
        found = full_grad(fn, _rows(inputs, rows), _target_rows(target, rows, samples), terms=terms)
        pieces.append(
            (found.map, _named(fn, found.input_term), found.contributions, found.completeness, found.target)
        )
        if progress is not None:
            progress(rows.stop, samples)
    maps, terms_of_inputs, contributions, completeness, targets = zip(*pieces, strict=True)
    shares = tuple(
        replace(share, total=np.concatenate([piece[k].total for piece in contributions]))
        for k, share in enumerate(contributions[0])
    )
    explained, total, error = (_joined(completeness, name) for name in ("output", "total", "error"))
    exact = np.concatenate([piece.within(FULL_GRAD_TOLERANCE) for piece in completeness])
    return MethodResult(
        method=FULL_GRAD,
        label=f"FullGrad, {terms} terms",
        attributions=_stacked(terms_of_inputs),
        map=_stacked(maps) if isinstance(maps[0], Mapping) else np.concatenate(maps),
        explained=explained,
        total=total,
        error=error,
        passed=tuple(bool(fine) if terms == "all" else None for fine in exact),
        target=_joined_targets(targets),
        seconds=time.perf_counter() - start,
        shares=shares,
        note="" if terms == "all" else "the biases of the layers alone, as published",
        settings={"terms": terms},
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
        map=None,
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
