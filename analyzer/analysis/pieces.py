"""A batch in pieces that fit into memory, and the results of the pieces put together."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.analysis.result import Arrays, Inputs, MethodResult, Progress
from analyzer.target import Target

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.methods import SaliencyMap
    from analyzer.target import TargetLike


def saliency_result(
    fn: Differentiable,
    method: str,
    label: str,
    pieces: Sequence[SaliencyMap],
    settings: Mapping[str, Any],
    start: float,
) -> MethodResult:
    """The result of a method that gives a map and nothing that adds up."""
    explained = joined(pieces, "output")
    return MethodResult(
        method=method,
        label=label,
        attributions={},
        maps=stacked([named(fn, piece.map) for piece in pieces]),
        explained=explained,
        total=None,
        error=None,
        passed=(None,) * len(explained),
        target=joined_targets([piece.target for piece in pieces]),
        seconds=time.perf_counter() - start,
        settings=settings,
    )


def _count(inputs: Inputs) -> int:
    return len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)


def _pieces(samples: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, samples)) for start in range(0, samples, size)]


def parts(
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
    """The part of a target of one class per sample; the arrays of a Target have a row for each."""
    if isinstance(target, Target):
        arrays: dict[str, Any] = {n: a[rows] for n, a in vars(target).items() if isinstance(a, np.ndarray)}
        return replace(target, **arrays)
    if isinstance(target, np.ndarray) and target.ndim and len(target) == samples:
        return target[rows]
    return target


def named(fn: Differentiable, value: Any) -> Arrays:
    """Attributions as {input name: array}, also where the inputs were one array."""
    return dict(value) if isinstance(value, Mapping) else {fn.differentiable_inputs[0]: value}


def stacked(pieces: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def joined(pieces: Sequence[Any], name: str) -> np.ndarray:
    return np.concatenate([np.atleast_1d(getattr(piece, name)) for piece in pieces]).astype(np.float64)


def joined_targets(targets: Sequence[np.ndarray | None]) -> np.ndarray | None:
    known = [np.asarray(target) for target in targets if target is not None]
    return np.concatenate(known) if len(known) == len(targets) else None
