"""What a method gives for a whole batch, as tables, pictures and files read it: arrays, completeness, contributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from analyzer.methods import Contribution

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
