"""SmoothGrad, SmoothGrad² and VarGrad: the mean, the mean square and the variance of the gradient over noisy copies.

Sources: Smilkov, Thorat, Kim, Viégas & Wattenberg 2017, "SmoothGrad: removing noise by adding noise"; Hooker, Erhan,
Kindermans & Kim 2019, "A Benchmark for Interpretability Methods in Deep Neural Networks" (SmoothGrad²); Adebayo,
Gilmer, Goodfellow & Kim 2018, "Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter
Values" (VarGrad).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate, explains
from analyzer.backends.base import Arrays, Inputs
from analyzer.backends.pieces import Progress
from analyzer.methods.arranged import by_sample
from analyzer.methods.counts import refuse_count
from analyzer.methods.held import Held, hold, in_batches
from analyzer.methods.noise import Noise
from analyzer.methods.path_result import like
from analyzer.methods.saliency import Attribution, maps_of
from analyzer.target import TargetLike


@dataclass(frozen=True, kw_only=True)
class SmoothAttribution(Attribution):
    """samples: noisy copies of each input. standard_error: of the mean that the attributions are, like them; None of
    VarGrad, which is no mean, and of a single copy.
    """

    samples: int = field(kw_only=True)
    standard_error: Any | None


@explains
@by_sample
def smooth_grad(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    verify: bool = True,
) -> SmoothAttribution:
    """The mean of the gradient over noisy copies of the inputs.

    model, inputs, target: as in `gradient`; the class that is highest at the inputs is explained in all copies.
    samples: noisy copies of each input. noise: the standard deviation of the Gaussian noise, as a share of the range
    (maximum − minimum) of each sample; the paper takes 0.1 to 0.2. seed: of the noise; a sample's noise is the same
    in any batch of which it is the same row. batch_size: copies evaluated at once. progress: called with the copies
    done and all.
    Returns `attributions` like the inputs with the `standard_error` of their mean; the map as that of `gradient`.
    Raises AnalysisError for a number of copies below 1 or a negative noise, and what `gradient` raises.
    Source: Smilkov et al. 2017, section 2.
    """
    moments = _moments(model, inputs, target, samples, Noise(noise, seed), batch_size, progress)
    return moments.result(inputs, moments.mean, standard_error=moments.standard_error())


@explains
@by_sample
def smooth_grad_squared(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    verify: bool = True,
) -> SmoothAttribution:
    """The mean of the squared gradient over noisy copies of the inputs. The arguments are those of `smooth_grad`.

    Source: Hooker et al. 2019, section 4.
    """
    moments = _moments(model, inputs, target, samples, Noise(noise, seed), batch_size, progress, np.square)
    return moments.result(inputs, moments.mean, standard_error=moments.standard_error())


@explains
@by_sample
def var_grad(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    verify: bool = True,
) -> SmoothAttribution:
    """The variance of the gradient over noisy copies of the inputs, (1/n) Σ (g − ḡ)².

    The arguments are those of `smooth_grad`. Source: Adebayo et al. 2018, section 2.
    """
    moments = _moments(model, inputs, target, samples, Noise(noise, seed), batch_size, progress)
    variance = {name: squares / samples for name, squares in moments.squares.items()}
    return moments.result(inputs, variance, standard_error=None)


@dataclass(frozen=True)
class _Moments:
    """mean, squares: of n numbers for every element, their mean and Σ (v − mean)², in double precision."""

    held: Held
    samples: int
    mean: Arrays
    squares: Arrays

    def add(self, name: str, row: int, count: int, value: np.ndarray) -> None:
        """Take in the `count`-th value of a sample, by Welford's recurrence: no sum of squares is cancelled."""
        off = value - self.mean[name][row]
        self.mean[name][row] += off / count
        self.squares[name][row] += off * (value - self.mean[name][row])

    def standard_error(self) -> Arrays | None:
        """The standard deviation of the values over √n; None for a single one."""
        if self.samples < 2:
            return None
        n = self.samples
        return {name: np.sqrt(squares / (n - 1) / n) for name, squares in self.squares.items()}

    def result(
        self, inputs: Inputs, attributions: Arrays, *, standard_error: Arrays | None
    ) -> SmoothAttribution:
        """The result in the precision and the form of the inputs."""

        def typed(arrays: Arrays) -> Arrays:
            return {name: array.astype(self.held.feeds[name].dtype) for name, array in arrays.items()}

        found = typed(attributions)
        return SmoothAttribution(
            map=like(inputs, maps_of(self.held.fn.graph, found)),
            output=self.held.output,
            target=self.held.chosen,
            attributions=like(inputs, found),
            samples=self.samples,
            standard_error=None if standard_error is None else like(inputs, typed(standard_error)),
        )


def _moments(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike,
    samples: int,
    noise: Noise,
    batch_size: int,
    progress: Progress | None,
    of: Callable[[np.ndarray], np.ndarray] = np.positive,
) -> _Moments:
    """The moments of a function of the gradient over noisy copies."""
    refuse_count("samples", samples, 1, 25)
    fn = differentiate(model)
    held = hold(fn, fn.check_inputs(inputs), target)
    zeros = [{name: np.zeros(held.feeds[name].shape) for name in held.names} for _ in range(2)]
    moments = _Moments(held, samples, *zeros)
    count = held.samples * samples
    for points in in_batches(count, batch_size):
        rows, copies = points // samples, points % samples
        gradients = held.finite_gradients(noise.noisy(held.feeds, held.names, rows, copies), rows).gradients
        for name, found in gradients.items():
            for row, copy, value in zip(rows, copies, found, strict=True):
                moments.add(name, row, copy + 1, of(value.astype(np.float64)))
        if progress is not None:
            progress(int(points[-1]) + 1, count)
    return moments
