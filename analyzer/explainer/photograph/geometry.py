"""Where a photograph of any size lies in the network's input: sizes as nodes, by the arithmetic of `load_images`.

From the height and the width of a photograph, int64 scalars of the graph, to one Axis for each of them. All arithmetic
is that of Python's: true division and rounding in float64, half to even.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.explainer.photograph.bands import Positions, counted, double, whole
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from converters.model import Preprocessing


@dataclass(frozen=True)
class Axis:
    """One axis. length: of the photograph; resized: its length once resized; start: the first element of the input, in
    elements of the resized photograph, negative where the input is padded; int64 scalars. size: of the input.
    """

    length: Tensor
    resized: Tensor
    start: Tensor
    size: int

    def index(self, op: Builder) -> Tensor:
        """Return, for every element of the input, the element of the resized photograph, (size,) int64."""
        return op.Add(np.arange(self.size), self.start)

    def clipped(self, op: Builder) -> Tensor:
        """Return the same, within the photograph."""
        last = op.Sub(self.resized, np.asarray(1))
        return op.Max(op.Min(self.index(op), last), np.asarray(0))

    def step(self, op: Builder) -> Tensor:
        """Return the pixels of the photograph for each of the resized one, float64."""
        return op.Div(double(op, self.length), double(op, self.resized))

    def to_input(self, op: Builder) -> Positions:
        """Return where the elements of the input lie in the photograph."""
        step = self.step(op)
        centres = op.Mul(op.Add(double(op, self.clipped(op)), 0.5), step)
        return Positions(centres, step, op.tensor(np.asarray(self.size)), self.length)

    def to_photograph(self, op: Builder, length: Tensor) -> tuple[Positions, Tensor]:
        """Return where the pixels of the photograph lie in a map of the input, and whether they lie there at all.

        length: of the map, int64 scalar. A pixel lies in the map where its centre does.
        """
        share = op.Div(double(op, length), float(self.size))
        resized = op.Div(double(op, self.resized), double(op, self.length))
        own = op.Add(double(op, counted(op, self.length)), 0.5)
        centres = op.Mul(op.Sub(op.Mul(own, resized), double(op, self.start)), share)
        seen = op.And(op.GreaterOrEqual(centres, 0.0), op.LessOrEqual(centres, double(op, length)))
        # The weights beyond the map are multiplied by 0; they are those of its border.
        centres = op.Min(op.Max(centres, 0.0), double(op, length))
        return Positions(centres, op.Mul(resized, share), self.length, length), seen


def axes_of(op: Builder, lengths: Sequence[Tensor], preprocessing: Preprocessing) -> tuple[Axis, ...]:
    """Return the axes of the height and of the width."""
    if preprocessing.fit == "pad":
        return _padded(op, lengths, preprocessing.size)
    resized = _resized(op, lengths, preprocessing)
    starts = [
        _start(op, one, size, preprocessing) for one, size in zip(resized, preprocessing.size, strict=True)
    ]
    found = zip(lengths, resized, starts, preprocessing.size, strict=True)
    return tuple(Axis(*one) for one in found)


def _padded(op: Builder, lengths: Sequence[Tensor], sizes: tuple[int, int]) -> tuple[Axis, ...]:
    """The whole photograph at the largest scale that fits, as `Letterbox.of`."""
    scale = op.Min(*(op.Div(float(size), double(op, one)) for size, one in zip(sizes, lengths, strict=True)))
    found = []
    for length, size in zip(lengths, sizes, strict=True):
        resized = op.Max(_nearest(op, op.Mul(double(op, length), scale)), np.asarray(1))
        border = op.Div(double(op, op.Sub(np.asarray(size), resized)), 2.0)
        found.append(Axis(length, resized, op.Neg(_nearest(op, op.Sub(border, 0.1))), size))
    return tuple(found)


def _resized(op: Builder, lengths: Sequence[Tensor], preprocessing: Preprocessing) -> list[Tensor]:
    """The height and the width before the crop."""
    sizes, resize = preprocessing.size, preprocessing.resize
    if preprocessing.fit == "stretch":
        return [op.tensor(np.asarray(max(resize or size, size))) for size in sizes]
    doubles = [double(op, one) for one in lengths]
    short = op.Min(*doubles)
    if resize is not None and preprocessing.rounding != "nearest":
        found = [whole(op, op.Div(op.Mul(one, float(resize)), short)) for one in doubles]
    else:
        if resize is not None:
            scale = op.Div(float(resize), short)
        else:
            scale = op.Max(*(op.Div(float(size), one) for size, one in zip(sizes, doubles, strict=True)))
        found = [_nearest(op, op.Mul(one, scale)) for one in doubles]
    return [op.Max(one, np.asarray(size)) for one, size in zip(found, sizes, strict=True)]


def _start(op: Builder, resized: Tensor, size: int, preprocessing: Preprocessing) -> Tensor:
    """The first element of the centre."""
    rest = op.Sub(resized, np.asarray(size))
    if preprocessing.rounding == "torchvision":
        return _nearest(op, op.Div(double(op, rest), 2.0))
    return op.Div(rest, np.asarray(2))


def _nearest(op: Builder, x: Tensor) -> Tensor:
    return whole(op, op.Round(x))
