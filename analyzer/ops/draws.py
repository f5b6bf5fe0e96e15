"""Ops that draw at random: what they draw does not move with their inputs.

Noise of a stated distribution is a constant of the gradient, as in the reparametrization of a variational
autoencoder (Kingma & Welling 2014). A draw whose distribution is an input has no gradient: it is refused between the
input and the target. Each backend draws its own numbers: two of them agree in distribution alone.
"""

from __future__ import annotations

import numpy as np
from onnx import helper

from analyzer.ops.registry import PiecewiseConstant, register


def _rng(seed):
    return np.random.default_rng(None if seed is None else np.float32(seed).view(np.uint32))


def _normal(shape, dtype, *, mean, scale, seed):
    return np.asarray(_rng(seed).normal(mean, scale, tuple(shape)), dtype)


def _uniform(shape, dtype, *, low, high, seed):
    return np.asarray(_rng(seed).uniform(low, high, tuple(shape)), dtype)


def _dtype_of(dtype, x=None):
    """The NumPy dtype that a node states, else that of its input."""
    if dtype is not None:
        return helper.tensor_dtype_to_np_dtype(dtype)
    return np.dtype(getattr(x.dtype, "as_numpy_dtype", None) or str(x.dtype).removeprefix("torch."))


@register
class RandomNormal(PiecewiseConstant):
    def torch(torch, *, dtype, shape, mean, scale, seed):
        return torch.as_tensor(_normal(shape, _dtype_of(dtype), mean=mean, scale=scale, seed=seed))

    def tensorflow(tf, *, dtype, shape, mean, scale, seed):
        return tf.constant(_normal(shape, _dtype_of(dtype), mean=mean, scale=scale, seed=seed))


@register
class RandomNormalLike(PiecewiseConstant):
    def torch(torch, x, *, dtype, mean, scale, seed):
        drawn = _normal(x.shape, _dtype_of(dtype, x), mean=mean, scale=scale, seed=seed)
        return torch.as_tensor(drawn, device=x.device)

    def tensorflow(tf, x, *, dtype, mean, scale, seed):
        return tf.constant(_normal(x.shape, _dtype_of(dtype, x), mean=mean, scale=scale, seed=seed))


@register
class RandomUniform(PiecewiseConstant):
    def torch(torch, *, dtype, shape, low, high, seed):
        return torch.as_tensor(_uniform(shape, _dtype_of(dtype), low=low, high=high, seed=seed))

    def tensorflow(tf, *, dtype, shape, low, high, seed):
        return tf.constant(_uniform(shape, _dtype_of(dtype), low=low, high=high, seed=seed))


@register
class RandomUniformLike(PiecewiseConstant):
    def torch(torch, x, *, dtype, low, high, seed):
        drawn = _uniform(x.shape, _dtype_of(dtype, x), low=low, high=high, seed=seed)
        return torch.as_tensor(drawn, device=x.device)

    def tensorflow(tf, x, *, dtype, low, high, seed):
        return tf.constant(_uniform(x.shape, _dtype_of(dtype, x), low=low, high=high, seed=seed))


@register
class Bernoulli(PiecewiseConstant):
    draws = True

    def torch(torch, x, *, dtype, seed):
        drawn = _uniform(x.shape, np.float64, low=0, high=1, seed=seed) < x.detach().cpu().numpy()
        return torch.as_tensor(drawn.astype(_dtype_of(dtype, x)), device=x.device)

    def tensorflow(tf, x, *, dtype, seed):
        drawn = _uniform(x.shape, np.float64, low=0, high=1, seed=seed) < x.numpy()
        return tf.constant(drawn.astype(_dtype_of(dtype, x)))


@register
class Multinomial(PiecewiseConstant):
    draws = True

    def torch(torch, x, *, dtype, sample_size, seed):
        drawn = _categories(x.detach().cpu().numpy(), sample_size, seed)
        return torch.as_tensor(drawn.astype(_dtype_of(dtype)), device=x.device)

    def tensorflow(tf, x, *, dtype, sample_size, seed):
        return tf.constant(_categories(x.numpy(), sample_size, seed).astype(_dtype_of(dtype)))


def _categories(logits: np.ndarray, count: int, seed: float | None) -> np.ndarray:
    """Classes drawn by their unnormalised log-probabilities (N, classes), (N, count): the Gumbel-max trick."""
    noise = _rng(seed).gumbel(size=(count, *logits.shape))
    return np.argmax(logits + noise, axis=-1).T
