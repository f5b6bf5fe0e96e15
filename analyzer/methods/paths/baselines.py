"""Baselines for path methods: the inputs that stand for "nothing there".

From what a user asks for to arrays like the inputs, one or several. Black and white are pixel values 0 and 1 brought
through the model's stored preprocessing, (p − mean) / std; without one they are the numbers 0 and 1. Random baselines
draw each sample from a stream of its own, so that they do not depend on the rest of the batch. Refuses names that it
does not know, arrays that do not fit, and blurs or means of inputs without spatial axes.
Source: Sundararajan, Taly & Yan 2017, section 3; Sturmfels, Lundberg & Lee 2020 on the choice of a baseline.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.backends import Differentiable
from analyzer.errors import AnalysisError, InputError, ShapeError
from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.graph.fixes import FINITE
from analyzer.methods.paths.blur import blurred, spatial_axes
from analyzer.types import Arrays, as_array, kind_of
from converters.model import Preprocessing

NAMES = ("black", "white", "mean", "uniform", "random", "gaussian", "blurred")


@dataclass(frozen=True)
class Dataset:
    """Samples (M, *features), each of them a baseline of every input."""

    samples: np.ndarray


@dataclass(frozen=True)
class Uniform:
    """Noise, uniform between black and white, `draws` times."""

    draws: int = 1


@dataclass(frozen=True)
class Gaussian:
    """The sample with Gaussian noise, `draws` times; sigma: as a share of the sample's range, maximum − minimum."""

    sigma: float = 0.5
    draws: int = 1


@dataclass(frozen=True)
class Blurred:
    """The sample under a Gaussian blur of σ pixels, by default an eighth of its shorter side; borders repeat."""

    sigma: float | None = None


Single = float | str | np.ndarray | Dataset | Uniform | Gaussian | Blurred
BaselineLike = Single | list[Single] | tuple[Single, ...]


def make_baselines(
    baseline: BaselineLike,
    x: np.ndarray,
    preprocessing: Preprocessing | None,
    rng: np.random.Generator,
    channel_axis: int = 1,
) -> list[np.ndarray]:
    """The baselines of an input, each shaped and typed like x (N, *features); some are read-only views.

    baseline: a number; an array that broadcasts to x; "black", "white", "mean" (of each channel of the sample),
        "uniform" or "random" (between black and white), "gaussian", "blurred"; a Dataset, Uniform, Gaussian or
        Blurred, which say more; or a list of these, whose baselines are joined.
    Raises ShapeError where an array does not fit, AnalysisError for an unknown name, InputError for NaN.
    """
    if isinstance(baseline, (list, tuple)):
        if not baseline:
            raise AnalysisError(
                "the list of baselines is empty. Fix: give at least one, or a number such as 0.0"
            )
        return [made for one in baseline for made in make_baselines(one, x, preprocessing, rng, channel_axis)]
    made: list[np.ndarray]
    match _spelled_out(baseline):
        case Dataset(samples):
            return _dataset(samples, x)
        case Uniform(draws):
            low, high = (_pixel(value, x, preprocessing, channel_axis) for value in (0.0, 1.0))
            made = [low + (high - low) * noise for noise in _noise(rng, x, draws, "uniform")]
        case Gaussian(sigma, draws):
            if not 0 <= sigma < np.inf:
                raise AnalysisError(
                    f"expected σ of Gaussian noise of at least 0, got {sigma}. Fix: give a share of the range, "
                    "Gaussian(0.1)"
                )
            features = tuple(range(1, x.ndim))
            spread = sigma * (x.max(axis=features, keepdims=True) - x.min(axis=features, keepdims=True))
            made = [x + spread * noise for noise in _noise(rng, x, draws, "gaussian")]
        case Blurred(sigma):
            made = [_blurred(x, channel_axis, sigma)]
        case str("black" | "white" as name):
            pixel = _pixel(float(name == "white"), x, preprocessing, channel_axis)
            made = [np.broadcast_to(pixel, x.shape)]
        case str("mean"):
            mean = x.mean(axis=spatial_axes(x, channel_axis), keepdims=True, dtype=np.float64)
            made = [np.broadcast_to(mean, x.shape)]
        case other:
            made = [_array(other, x)]
    return [one.astype(x.dtype) for one in made]


def baseline_feeds(
    fn: Differentiable,
    feeds: Arrays,
    baseline: BaselineLike | Mapping[str, BaselineLike],
    rng: np.random.Generator,
) -> list[Arrays]:
    """The feeds at each baseline: floating inputs at theirs, 0 where a dict names none; the others as they are.

    Inputs with several baselines must have equally many, which go together; a single one goes with all.
    Raises AnalysisError for a name that is no floating input, or numbers that differ; what `make_baselines` raises.
    """
    names = fn.differentiable_inputs
    given = baseline if isinstance(baseline, Mapping) else dict.fromkeys(names, baseline)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise AnalysisError(
            f"a baseline for {unknown[0]!r}, which is not a floating input of the model. Fix: choose from "
            f"{', '.join(names)}"
        )
    axes = channel_axes(fn.graph)
    made = {
        name: make_baselines(
            given.get(name, 0.0),
            feeds[name],
            fn.model.preprocessing,
            rng,
            input_channel_axis(fn.graph, name, axes),
        )
        for name in names
    }
    counts = {len(arrays) for arrays in made.values()}
    several = counts - {1}
    if len(several) > 1:
        numbers = ", ".join(f"{len(arrays)} for {name!r}" for name, arrays in made.items())
        raise AnalysisError(
            f"inputs have different numbers of baselines: {numbers}. Fix: give as many for each, or one"
        )
    return [
        {**feeds, **{name: arrays[k % len(arrays)] for name, arrays in made.items()}}
        for k in range(max(counts, default=0))
    ]


def averaged(attributions: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray | None]:
    """The mean over baselines, and the standard error of that mean at each feature; None of a single baseline.

    The error is that of the mean of all such baselines: what other draws from the same source would change.
    """
    stack = np.stack(attributions)
    mean: np.ndarray = stack.mean(axis=0, dtype=np.float64)
    if len(stack) == 1:
        return mean.astype(stack.dtype), None
    error: np.ndarray = stack.std(axis=0, ddof=1, dtype=np.float64) / np.sqrt(len(stack))
    return mean.astype(stack.dtype), error.astype(stack.dtype)


def _spelled_out(baseline: Single) -> Single:
    """A name of something that has parameters as that, with its defaults."""
    if not isinstance(baseline, str):
        return baseline
    if baseline not in NAMES:
        raise AnalysisError(
            f"unknown baseline {baseline!r}. Fix: give {', '.join(NAMES)}, a number or an array"
        )
    kinds: dict[str, Single] = {
        "uniform": Uniform(),
        "random": Uniform(),
        "gaussian": Gaussian(),
        "blurred": Blurred(),
    }
    return kinds.get(baseline, baseline)


def _array(baseline: object, x: np.ndarray) -> np.ndarray:
    array = numbers(baseline, "the baseline")
    try:
        return np.broadcast_to(array, x.shape)
    except ValueError as error:
        raise ShapeError(
            f"a baseline of shape {array.shape} does not broadcast to the input {x.shape}. Fix: give a number, or an "
            f"array of shape {x.shape}"
        ) from error


def _dataset(samples: object, x: np.ndarray) -> list[np.ndarray]:
    array = numbers(samples, "a data set of baselines")
    if array.ndim != x.ndim or array.shape[1:] != x.shape[1:] or not len(array):
        wanted = ", ".join(["M", *map(str, x.shape[1:])])
        raise ShapeError(
            f"a data set of shape {array.shape} has no baselines of the input. Fix: give an array of shape "
            f"({wanted}), M being their number"
        )
    return [np.broadcast_to(sample, x.shape) for sample in array.astype(x.dtype)]


def numbers(value: object, what: str) -> np.ndarray:
    """An array of finite numbers. what: what it is, for the error. Raises InputError."""
    try:
        array = as_array(value)
    # Rows of different lengths.
    except ValueError as error:
        raise InputError(f"{what} has rows of different lengths. Fix: give an array of numbers") from error
    if array.dtype.kind not in "fiu":
        raise InputError(f"{what} is {kind_of(value, array)}. Fix: give a number or an array of numbers")
    if not np.isfinite(array).all():
        raise InputError(f"{what} holds NaN or infinity. {FINITE}")
    return array


def _noise(rng: np.random.Generator, x: np.ndarray, draws: int, kind: str) -> list[np.ndarray]:
    """Noise like x, `draws` times, each sample from its own stream."""
    if draws < 1:
        raise AnalysisError(
            f"expected at least one draw of a random baseline, got {draws}. Fix: give draws=1 or more"
        )
    size = (draws, *x.shape[1:])
    streams = rng.spawn(len(x))
    own = [s.random(size) if kind == "uniform" else s.standard_normal(size) for s in streams]
    return list(np.stack(own, axis=1))


def _pixel(value: float, x: np.ndarray, preprocessing: Preprocessing | None, channel_axis: int) -> np.ndarray:
    """A pixel value in the model's input units, broadcastable to x."""
    if preprocessing is None or x.ndim < 3:
        return np.full((1,) * x.ndim, value)
    shape = [1] * x.ndim
    shape[channel_axis] = -1
    pixel: np.ndarray = (value - np.asarray(preprocessing.mean)) / np.asarray(preprocessing.std)
    return pixel.reshape(shape)


def _blurred(x: np.ndarray, channel_axis: int, sigma: float | None) -> np.ndarray:
    spatial = spatial_axes(x, channel_axis)
    if sigma is None:
        sigma = min(x.shape[axis] for axis in spatial) / 8
    if not sigma > 0:
        raise AnalysisError(
            f"expected σ of the blur above 0, got {sigma}. Fix: give pixels, as in Blurred(8.0)"
        )
    return blurred(x, sigma, channel_axis)
