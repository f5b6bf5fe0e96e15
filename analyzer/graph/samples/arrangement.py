"""How the inputs and outputs of a model hold the samples, and arrays with the samples first.

An Arrangement is decided once for a model and inputs of one shape. Methods then run on a *view* of the model
(view.py), all of whose inputs and outputs have one sample after the other along axis 0. `first` brings the user's
arrays into that form, `back` brings results into the user's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from analyzer.graph.samples.labels import Span
from analyzer.types import Arrays, Sizes

INDEPENDENT, JOINT = "independent", "joint"
FIRST = Span(0)


@dataclass(frozen=True)
class Arrangement:
    """samples: "independent", or "joint" where the whole call is one sample. spans: where the samples lie in inputs
    and outputs that do not hold them along axis 0. wrapped: inputs and outputs that are one sample as they are, to
    which an axis 0 of size 1 is added. alone: the file runs one sample at a time. note: what a reader must know of
    it; empty where all is as expected. inner: where the samples lie in tensors within, at the sizes of the inputs.
    tried: whether samples were found independent by running, at the inputs alone; `holding` then names the inputs that
    hold samples, `why` the node that may join them.
    """

    samples: str = INDEPENDENT
    spans: Mapping[str, Span] = field(default_factory=dict)
    wrapped: frozenset[str] = frozenset()
    alone: bool = False
    note: str = ""
    inner: Mapping[str, tuple[Span, Sizes]] = field(default_factory=dict, repr=False, compare=False)
    tried: bool = False
    holding: frozenset[str] = frozenset()
    why: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What tells an arrangement from others."""
        return (
            self.samples,
            tuple(sorted(self.spans.items(), key=repr)),
            self.wrapped,
            self.alone,
            self.tried,
        )

    @property
    def plain(self) -> bool:
        """Whether the model needs no view."""
        return not (self.spans or self.wrapped or self.alone)

    def first(self, name: str, array: np.ndarray) -> np.ndarray:
        """An input or output, or what is shaped like it, with the samples along axis 0."""
        if name in self.wrapped:
            return array[None]
        span = self.spans.get(name)
        return array if span is None else samples_first(array, span)

    def back(self, name: str, array: np.ndarray) -> np.ndarray:
        """An array with the samples along axis 0 as the user's model has it."""
        if name in self.wrapped:
            return np.asarray(array[0])
        span = self.spans.get(name)
        return array if span is None else samples_back(array, span)

    def all_first(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Arrays by name with the samples along axis 0."""
        return {name: self.first(name, array) for name, array in arrays.items()}

    def all_back(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """Arrays by name as the user's model has them."""
        return {name: self.back(name, array) for name, array in arrays.items()}


PLAIN = Arrangement()
"""Every input and output has one sample after the other along axis 0."""


def samples_first(array: np.ndarray, span: Span) -> np.ndarray:
    """(lead, blocks · N · runs, trail) as (N, lead, blocks, runs, trail), blocks and runs of 1 left out."""
    lead, trail = array.shape[: span.axis], array.shape[span.axis + 1 :]
    apart = array.reshape(*lead, span.blocks, -1, span.runs, *trail)
    moved = np.moveaxis(apart, span.axis + 1, 0)
    inner = [size for size in (span.blocks, span.runs) if size > 1]
    return np.ascontiguousarray(moved).reshape(len(moved), *lead, *inner, *trail)


def samples_back(array: np.ndarray, span: Span) -> np.ndarray:
    """The inverse of `samples_first`."""
    inner = sum(size > 1 for size in (span.blocks, span.runs))
    lead, trail = array.shape[1 : 1 + span.axis], array.shape[1 + span.axis + inner :]
    apart = array.reshape(len(array), *lead, span.blocks, span.runs, *trail)
    moved = np.moveaxis(apart, 0, span.axis + 1)
    size = span.blocks * len(array) * span.runs
    return np.ascontiguousarray(moved).reshape(*lead, size, *trail)
