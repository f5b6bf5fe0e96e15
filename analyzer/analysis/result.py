"""What a method gives for a whole batch, as tables, pictures and files read it: arrays, completeness, contributions."""

from __future__ import annotations

import re
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
    make `total`. output (N,): the explained scalar. explained, total, error (N,): completeness, of the output or of its
    difference from another; total and error are None of a method that gives a map and no sum. passed: per sample, None
    where completeness is not claimed. input_totals, shares: what FullGrad sums, (N,).
    classes: how the class of each sample is called, where this is the result of one of several. asked: the target in
    the user's words. channel_axes: {name of what is attributed: the axis that a picture sums over}. signed: whether
    the map has signs; of those that always have, the table of methods tells. samples: "independent", or "joint" where
    samples depend on one another and the whole call is explained as one; samples_note: why, or how a file was run.
    """

    method: str
    label: str
    attributions: Arrays
    maps: Arrays
    output: np.ndarray
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
    classes: tuple[str, ...] = ()
    asked: str = ""
    channel_axes: Mapping[str, int] = field(default_factory=dict)
    signed: bool = False
    samples: str = "independent"
    samples_note: str = ""

    @property
    def delta(self) -> np.ndarray | None:
        """(N,): what the sum has over what it must be; None of a method that gives no sum."""
        return None if self.total is None else self.total - self.explained

    def title_of(self, index: int) -> str:
        """The label of one sample's result, with its class where there are several."""
        if not self.classes:
            return self.label
        name, comma, rest = self.label.partition(",")
        return f"{name}: {self.classes[index]}{comma}{rest}"

    def file_name_of(self, index: int) -> str:
        """What one sample's picture is called, "integrated-gradients-281-tabby" where there are several classes."""
        if not self.classes:
            return self.method
        assert self.target is not None
        number, name = int(self.target[index]), re.sub(r"[^\w.-]+", "-", self.classes[index]).strip("-.")
        return f"{self.method}-{name}" if name == f"class-{number}" else f"{self.method}-{number}-{name}"
