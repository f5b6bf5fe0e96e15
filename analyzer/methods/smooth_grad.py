"""SmoothGrad, SmoothGrad² and VarGrad: the mean, the mean square and the variance of the gradient over noisy copies.

Sources: Smilkov, Thorat, Kim, Viégas & Wattenberg 2017, "SmoothGrad: removing noise by adding noise"; Hooker, Erhan,
Kindermans & Kim 2019, "A Benchmark for Interpretability Methods in Deep Neural Networks" (SmoothGrad²); Adebayo,
Gilmer, Goodfellow & Kim 2018, "Local Explanation Methods for Deep Neural Networks Lack Sensitivity to Parameter
Values" (VarGrad).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analyzer.autodiff.request import gradient_name, observe
from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.deprecation import renamed
from analyzer.errors import AnalysisError
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.methods.exporting import ExplainerGraph, Exported, Finish
from analyzer.methods.numbers import refuse_count
from analyzer.methods.paths.fixed_target import Held, hold, in_batches
from analyzer.methods.paths.missed import LEAST_COPIES, missed_variance
from analyzer.methods.paths.noise import Noise, noisy_copies
from analyzer.methods.registry import method
from analyzer.methods.result import Attribution
from analyzer.methods.saliency import emitted_maps, maps_of
from analyzer.target.target import TargetLike
from analyzer.types import Arrays, Inputs, Progress, Rng
from converters.system.randomness import seed_from
from converters.verification.norms import inner


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class SmoothAttribution(Attribution):
    """The result of a method over noisy copies.

    samples: noisy copies of each input.
    standard_error: of the mean that the attributions are, like them. It is None where it is unknown: of VarGrad, which
        is not a mean, and of fewer than five copies. The outputs of the copies may show that their gradients missed a
        steep region. It is then raised to a bound of the error (missed.py); for SmoothGrad², whose error has no bound,
        it is infinite.
    """

    samples: int
    standard_error: Any | None

    @property
    def detail(self) -> str:
        """The number of copies."""
        return f"{self.samples} copies"


def _over_copies(
    explainer: ExplainerGraph, samples: int, noise: float, rng: Rng, finish: Finish, *, stacked: bool = False
) -> dict[str, Tensor]:
    """Emit `finish` of the gradients at noisy copies: its sums, or its values stacked, {input name: tensor}."""
    refuse_count("samples", samples, 1, 25)
    names = explainer.fn.roots()
    noisy = noisy_copies(explainer, names, samples, Noise(noise, seed_from(rng, AnalysisError)))

    def by_input(op: Builder, numbers: Tensor, found: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return finish(op, numbers, {name: found[gradient_name(name)] for name in names})

    return explainer.repeated(samples, noisy, observe((), names), by_input, stacked=stacked)


def _as_they_are(op: Builder, numbers: Tensor, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return gradients


def _squared(op: Builder, numbers: Tensor, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    return {name: op.Mul(g, g) for name, g in gradients.items()}


def _exporter_of_mean(finish: Finish) -> Callable[..., Exported]:
    """Return the exporter of a mean over noisy copies."""

    def export(explainer: ExplainerGraph, *, samples: int, noise: float, rng: Rng) -> Exported:
        sums = _over_copies(explainer, samples, noise, rng, finish)
        means = {name: explainer.op.Div(total, float(samples)) for name, total in sums.items()}
        return _exported(explainer, means)

    return export


def _export_variance(explainer: ExplainerGraph, *, samples: int, noise: float, rng: Rng) -> Exported:
    """Emit the variance of all gradients: sums of squares alone would cancel."""
    op, found = explainer.op, {}
    gradients = _over_copies(explainer, samples, noise, rng, _as_they_are, stacked=True)
    for name, stack in gradients.items():
        off = op.Sub(stack, op.ReduceMean(stack, [0], keepdims=1))
        found[name] = op.ReduceMean(op.Mul(off, off), [0], keepdims=0)
    return _exported(explainer, found)


def _exported(explainer: ExplainerGraph, attributions: Mapping[str, Tensor]) -> Exported:
    shaped = {
        name: replace(one, shape=explainer.graph.tensors[name].shape) for name, one in attributions.items()
    }
    maps = emitted_maps(explainer, explainer.graph, shaped)
    return Exported(shaped, maps, signed=False, row_dependent=True)


@renamed(seed="rng")
@method(
    "smooth-grad",
    export=_exporter_of_mean(_as_they_are),
    line="the gradient averaged over noisy copies",
    caption="SmoothGrad",
    note="the gradient averaged over noisy copies, by size",
    source="Smilkov et al. 2017, section 2",
    cost="{samples} gradients (samples)",
)
def smooth_grad(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    rng: Rng = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    verify: bool = True,
) -> SmoothAttribution:
    """Return the mean of the gradient over noisy copies of the inputs.

    model, inputs, target: as in `gradient`; the class that is highest at the inputs is explained in all copies.
    samples: noisy copies of each input.
    noise: standard deviation of the Gaussian noise, as a share of the range (maximum − minimum) of each sample. The
        paper takes 0.1 to 0.2.
    rng: a Generator or a seed for the noise. With a seed, a sample's noise is the same in any batch of which it is the
        same row.
    batch_size: copies evaluated at once.
    progress: called with the copies done and all.
    Returns `attributions` like the inputs with the `standard_error` of their mean; the map as that of `gradient`.
    Raises AnalysisError for a number of copies below 1 or a negative noise, and what `gradient` raises.
    Source: Smilkov et al. 2017, section 2.
    """
    moments = _moments(
        model, inputs, target, samples, Noise(noise, seed_from(rng, AnalysisError)), batch_size, progress
    )
    errors = moments.raised(moments.mean, moments.squares)
    return moments.result(moments.mean, standard_error=errors)


@renamed(seed="rng")
@method(
    "smooth-grad-squared",
    export=_exporter_of_mean(_squared),
    line="the squared gradient averaged over noisy copies",
    caption="SmoothGrad²",
    note="the squared gradient averaged over noisy copies",
    source="Hooker et al. 2019, section 4",
    cost="{samples} gradients (samples)",
    like=smooth_grad,
)
def smooth_grad_squared(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    rng: Rng = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    verify: bool = True,
) -> SmoothAttribution:
    """Return the mean of the squared gradient over noisy copies of the inputs.

    The arguments are those of `smooth_grad`. Source: Hooker et al. 2019, section 4.
    """
    noises = Noise(noise, seed_from(rng, AnalysisError))
    moments = _moments(model, inputs, target, samples, noises, batch_size, progress, np.square)
    # Of squares g², Σ (g − ḡ)² is at most their sum, and ḡ is not kept: nothing is explained by it.
    sums = {name: mean * samples for name, mean in moments.mean.items()}
    nothing = {name: np.zeros_like(mean) for name, mean in moments.mean.items()}
    errors = moments.raised(nothing, sums, bounded=False)
    return moments.result(moments.mean, standard_error=errors)


@renamed(seed="rng")
@method(
    "var-grad",
    export=_export_variance,
    line="how the gradient varies over noisy copies",
    caption="VarGrad",
    note="the variance of the gradient over noisy copies",
    source="Adebayo et al. 2018, section 2",
    cost="{samples} gradients (samples)",
    like=smooth_grad,
)
def var_grad(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    samples: int = 25,
    noise: float = 0.15,
    rng: Rng = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
    verify: bool = True,
) -> SmoothAttribution:
    """Return the variance of the gradient over noisy copies of the inputs, (1/n) Σ (g − ḡ)².

    The arguments are those of `smooth_grad`. Source: Adebayo et al. 2018, section 2.
    """
    moments = _moments(
        model, inputs, target, samples, Noise(noise, seed_from(rng, AnalysisError)), batch_size, progress
    )
    variance = {name: squares / samples for name, squares in moments.squares.items()}
    return moments.result(variance, standard_error=None)


@dataclass(frozen=True)
class _Moments:
    """mean, squares: of n numbers for every element, their mean and Σ (v − mean)², in double precision. outputs (N, n):
    of the copies.
    """

    held: Held
    samples: int
    noise: Noise
    outputs: np.ndarray
    mean: Arrays
    squares: Arrays

    def add(self, name: str, row: int, count: int, value: np.ndarray) -> None:
        """Take in the `count`-th value of a sample, by Welford's recurrence: no sum of squares is cancelled."""
        off = value - self.mean[name][row]
        self.mean[name][row] += off / count
        self.squares[name][row] += off * (value - self.mean[name][row])

    def standard_error(self) -> Arrays | None:
        """The standard deviation of the values over √n; None for too few of them."""
        if self.samples < LEAST_COPIES:
            return None
        n = self.samples
        return {name: np.sqrt(squares / (n - 1) / n) for name, squares in self.squares.items()}

    def raised(self, mean: Arrays, squares: Arrays, *, bounded: bool = True) -> Arrays | None:
        """The standard errors, raised where outputs show that gradients missed something.

        mean, squares: of the gradients, Σ (g − mean)². bounded: whether the missed variance bounds the error.
        """
        errors = self.standard_error()
        if errors is None:
            return None
        for row in range(self.held.samples):
            spreads = {
                name: float(self.noise.spread(self.held.feeds[name][[row]]).reshape(())) for name in errors
            }
            varied = sum(spreads[name] ** 2 * float(squares[name][row].sum()) for name in errors)
            missed = missed_variance(
                self.outputs[row], self._explained(mean, row), varied / (self.samples - 1)
            )
            if missed:
                for name, spread in spreads.items():
                    bound = np.sqrt(missed) / spread if bounded and spread else np.inf
                    errors[name][row] = np.hypot(errors[name][row], bound)
        return errors

    def _explained(self, mean: Arrays, row: int) -> np.ndarray:
        """⟨mean, noise⟩ of every copy of a sample, (n,)."""
        found = np.zeros(self.samples)
        feeds = self.held.feeds
        for copy in range(self.samples):
            noisy = self.noise.noisy(feeds, self.held.names, np.array([row]), np.array([copy]))
            for name in self.held.names:
                moved = noisy[name][0].astype(np.float64) - feeds[name][row]
                found[copy] += inner(mean[name][row], moved)
        return found

    def result(self, attributions: Arrays, *, standard_error: Arrays | None) -> SmoothAttribution:
        """The result in the precision and the form of the inputs."""

        def typed(arrays: Arrays) -> Arrays:
            return {name: array.astype(self.held.feeds[name].dtype) for name, array in arrays.items()}

        found = typed(attributions)
        return SmoothAttribution(
            attributions=self.held.form(found),
            maps=self.held.form(maps_of(self.held.fn.graph, found)),
            output=self.held.output,
            target=self.held.chosen,
            signed=False,
            wrt=self.held.names,
            samples=self.samples,
            standard_error=None if standard_error is None else self.held.form(typed(standard_error)),
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
    held = hold(differentiate(model).bind(inputs, target))
    zeros = [{name: np.zeros(held.feeds[name].shape) for name in held.names} for _ in range(2)]
    moments = _Moments(held, samples, noise, np.zeros((held.samples, samples), held.output.dtype), *zeros)
    count = held.samples * samples
    for points in in_batches(count, batch_size):
        rows, copies = points // samples, points % samples
        found = held.finite_gradients(noise.noisy(held.feeds, held.names, rows, copies), rows)
        moments.outputs[rows, copies] = found.output
        for name, gradients in found.gradients.items():
            for row, copy, value in zip(rows, copies, gradients, strict=True):
                moments.add(name, row, copy + 1, of(value.astype(np.float64)))
        if progress is not None:
            progress(int(points[-1]) + 1, count)
    return moments
