"""Noisy copies of inputs, each drawn from a stream of its own: no copy depends on which others are drawn beside it.

From feeds and a seed to feeds with Gaussian noise by the range of each sample; integers stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from analyzer.errors import AnalysisError, ExportError
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.methods.exporting import ExplainerGraph, rank_of
from analyzer.types import Arrays


@dataclass(frozen=True)
class Noise:
    """share: the standard deviation of the noise as a share of the range (maximum − minimum) of each sample."""

    share: float
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.share, (int, float, np.number)) or not self.share >= 0:
            raise AnalysisError(
                f"expected noise of at least 0, got {self.share!r}. Fix: give a share of the inputs' range, noise=0.15"
            )

    def noisy(self, feeds: Arrays, names: Sequence[str], rows: np.ndarray, copies: np.ndarray) -> Arrays:
        """Copy `copies`[k] of sample `rows`[k] of each tensor in `names`, (n, *features)."""
        draws = self.draws({name: feeds[name].shape[1:] for name in names}, rows, copies)
        found = {}
        for name in names:
            clean = feeds[name][rows]
            noisy: np.ndarray = clean + self.spread(clean) * draws[name]
            found[name] = noisy.astype(clean.dtype)
        return found

    def draws(self, shapes: Mapping[str, tuple[int, ...]], rows: np.ndarray, copies: np.ndarray) -> Arrays:
        """Return standard normal numbers for each copy, {name: (n, *shape)}.

        They are rounded to float32, as a file stores them (`noisy_copies`), and have double precision here.
        """
        streams = [
            np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(int(row), int(copy))))
            for row, copy in zip(rows, copies, strict=True)
        ]
        return {
            name: np.stack([stream.standard_normal(shape) for stream in streams])
            .astype(np.float32)
            .astype(float)
            for name, shape in shapes.items()
        }

    def spread(self, clean: np.ndarray) -> np.ndarray:
        """The standard deviation of the noise of samples (n, *features), (n, 1, …)."""
        axes = tuple(range(1, clean.ndim))
        found: np.ndarray = self.share * (
            clean.max(axis=axes, keepdims=True) - clean.min(axis=axes, keepdims=True)
        )
        return found


def noisy_copies(
    explainer: ExplainerGraph, names: Sequence[str], samples: int, noise: Noise
) -> Callable[[Builder, Tensor], dict[str, Tensor]]:
    """Emit noisy copies: from the numbers of copies, (k,), to inputs {name: (k, N, *features)}.

    The noise is an input, whose default are the numbers that row 0 of a batch gets here; or each run of the file draws
    its own, of a fixed seed.
    """
    tensors = {name: explainer.graph.tensors[name] for name in names}
    spreads = {name: _spread(explainer.op, tensor, noise.share) for name, tensor in tensors.items()}
    drawn = {} if explainer.draw == "inside" else _stored(explainer, tensors, samples, noise)

    def copies(op: Builder, numbers: Tensor) -> dict[str, Tensor]:
        found = {}
        for place, (name, x) in enumerate(tensors.items()):
            if name in drawn:
                draws = op.Gather(drawn[name], numbers, axis=0)
            else:
                like = op.Expand(op.Unsqueeze(x, [0]), op.Concat(op.Shape(numbers), op.Shape(x), axis=0))
                draws = op.RandomNormalLike(like, seed=float(noise.seed * 31 + place + 1))
            # In double precision as in Python, so that both decide alike near the kinks of a ReLU.
            clean, spread, draws = (
                op.Cast(one, to=onnx.TensorProto.DOUBLE)
                for one in (op.Unsqueeze(x, [0]), spreads[name], draws)
            )
            found[name] = op.Cast(op.Add(clean, op.Mul(spread, draws)), to=op.dtype_of(x))
        return found

    return copies


def _spread(op: Builder, x: Tensor, share: float) -> Tensor:
    """The standard deviation of the noise of each sample, (1, N, 1, …)."""
    axes = list(range(1, rank_of(x)))
    wide = op.Sub(op.ReduceMax(x, axes, keepdims=1), op.ReduceMin(x, axes, keepdims=1))
    return op.Unsqueeze(op.Mul(wide, float(share)), [0])


def _stored(
    explainer: ExplainerGraph, tensors: Mapping[str, Tensor], samples: int, noise: Noise
) -> dict[str, Tensor]:
    shapes = {}
    for name, x in tensors.items():
        features = (x.shape or ())[1:]
        known = tuple(size for size in features if isinstance(size, int))
        if len(known) < len(features):
            raise ExportError(
                f'expected an input {name!r} of fixed sizes to store noise for, got {x.shape}. Fix: draw="inside" '
                "(--draw inside), which draws it in each run"
            )
        shapes[name] = known
    drawn = noise.draws(shapes, np.zeros(samples, int), np.arange(samples))
    return {
        name: explainer.input(
            "noise",
            drawn[name][:, None].astype(np.float32),
            (samples, "noise_rows", *shapes[name]),
            "standard normal numbers for each noisy copy, of each sample or one row for all",
            of=name,
            alone=len(tensors) == 1,
        )
        for name, x in tensors.items()
    }
