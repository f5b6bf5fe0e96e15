"""Fourier transforms, their windows, and the mel matrix.

A real transform is taken as the complex one, cut to the frequencies that count; so every transform is one complex
matrix, and its transpose is the transform in the other direction. Refuses an axis, a frame or an inverse onesided
transform whose size is not known before running.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from onnx import helper

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Tensor
from analyzer.ops.eager import Composed
from analyzer.ops.indexing import ungather
from analyzer.ops.registry import Homogeneous, Multilinear, PiecewiseConstant, register
from analyzer.ops.support import axis_size, cast, constant_ints, ints, ones, place, rank_of
from converters.types import Shape


@dataclass(frozen=True)
class _Transform:
    """One transform: its axis, and the number of points. `weights` are those of a onesided spectrum to invert."""

    axis: int
    length: int
    weights: np.ndarray | None


def _plan(x: Any, dft_length: Any, axis: Any, inverse: int, onesided: int) -> _Transform:
    rank = len(x.shape)
    along = (-2 if axis is None else ints(axis)[0]) % rank
    size = int(x.shape[along])
    if not (inverse and onesided):
        return _Transform(along, size if dft_length is None else ints(dft_length)[0], None)
    length = 2 * (size - 1) if dft_length is None else ints(dft_length)[0]
    return _Transform(along, length, _weights(min(size, length // 2 + 1), length, rank - along - 2))


def _weights(size: int, length: int, trailing: int) -> np.ndarray:
    """How often the first frequencies of a onesided spectrum occur in the whole: 0 and the highest of even once."""
    frequencies = np.arange(size)
    counts = np.where((frequencies == 0) | (2 * frequencies == length), 1.0, 2.0)
    return counts.reshape(-1, *ones(trailing))


@register
class DFT(Homogeneous):
    inactive = frozenset({1, 2})

    def torch(torch, x, dft_length=None, axis=None, *, inverse, onesided):
        plan = _plan(x, dft_length, axis, inverse, onesided)
        # In double: in single precision a transform leaves 1e-6 where the sum is 0.
        wide = x.to(torch.float64)
        z = torch.complex(wide[..., 0], wide[..., 1] if x.shape[-1] == 2 else torch.zeros_like(wide[..., 0]))
        if plan.weights is not None:
            z = z.narrow(plan.axis, 0, len(plan.weights)) * torch.as_tensor(plan.weights, device=x.device)
        z = (torch.fft.ifft if inverse else torch.fft.fft)(z, plan.length, plan.axis)
        if onesided and not inverse:
            z = z.narrow(plan.axis, 0, plan.length // 2 + 1)
        pairs = torch.view_as_real(z)
        return (pairs[..., :1] if plan.weights is not None else pairs).to(x.dtype)

    def tensorflow(tf, x, dft_length=None, axis=None, *, inverse, onesided):
        plan = _plan(x, dft_length, axis, inverse, onesided)
        # In double, as in PyTorch.
        wide = tf.cast(x, tf.float64)
        z = tf.complex(wide[..., 0], wide[..., 1] if x.shape[-1] == 2 else tf.zeros_like(wide[..., 0]))
        front = [slice(None)] * plan.axis
        if plan.weights is not None:
            z = z[(*front, slice(len(plan.weights)))] * tf.cast(plan.weights, z.dtype)
        # TensorFlow transforms the last axis alone, and fits nothing to a length.
        order = [*[i for i in range(len(z.shape)) if i != plan.axis], plan.axis]
        z = tf.transpose(z, order)[..., : plan.length]
        z = tf.pad(z, [(0, 0)] * (len(order) - 1) + [(0, plan.length - z.shape[-1])])
        z = tf.transpose((tf.signal.ifft if inverse else tf.signal.fft)(z), np.argsort(order))
        if onesided and not inverse:
            z = z[(*front, slice(plan.length // 2 + 1))]
        parts = [tf.math.real(z)] if plan.weights is not None else [tf.math.real(z), tf.math.imag(z)]
        return tf.cast(tf.stack(parts, -1), x.dtype)

    def vjp(op, g, y, x, dft_length=None, axis=None, *, inverse, onesided):
        def of_x():
            along = [-2] if axis is None else constant_ints(axis)
            if along is None:
                raise UnsupportedOp(f"DFT: the axis of the transform is computed while running. {TRACED}")
            return _of_signal(op, g, x, dft_length, along[0] % rank_of(x), inverse, onesided)

        return of_x, None, None


def _of_signal(
    op: Builder, g: Tensor, x: Tensor, dft_length: Tensor | None, axis: int, inverse: int, onesided: int
) -> Tensor:
    """The transpose of a transform: the one in the other direction, but for the factor 1 / length."""
    shape = x.shape or ()
    if not isinstance(shape[-1], int):
        raise UnsupportedOp(f"DFT: whether {x.name!r} is real or complex is unknown before running. {TRACED}")
    if inverse and onesided:
        return _of_spectrum(op, g, shape, dft_length, axis, x.dtype)
    length = dft_length if dft_length is not None else _count(op, x, axis)
    # Frequencies that a onesided spectrum leaves out are filled with zeros.
    whole = op.DFT(g, length, np.asarray(axis), inverse=1 - inverse)
    scale = cast(op, length, x)
    whole = op.Div(whole, scale) if inverse else op.Mul(whole, scale)
    if shape[-1] == 1:
        whole = op.Slice(whole, [0], [1], [-1])
    if dft_length is None:
        return whole
    points = None if length.constant is None else int(length.constant.reshape(()))
    return place(op, whole, tuple(points if i == axis else n for i, n in enumerate(shape)), [0], x, [axis])


def _of_spectrum(
    op: Builder, g: Tensor, shape: Shape, dft_length: Tensor | None, axis: int, dtype: np.dtype[Any]
) -> Tensor:
    """The transpose of an inverse onesided transform: the spectrum of g, each frequency as often as it occurs."""
    size, given = shape[axis], constant_ints(dft_length)
    if not isinstance(size, int) or (dft_length is not None and given is None):
        raise UnsupportedOp(
            f"DFT: the length of an inverse onesided transform is unknown before running. {TRACED}"
        )
    length = given[0] if given is not None else 2 * (size - 1)
    if size != length // 2 + 1:
        raise UnsupportedOp(
            f"DFT: on {size} frequencies for an inverse onesided transform of {length} points ONNX Runtime and "
            f"NumPy disagree. Fix: give {length // 2 + 1} frequencies, which have a VJP rule"
        )
    halved = op.DFT(g, None, np.asarray(axis), onesided=1)
    return op.Mul(halved, (_weights(size, length, len(shape) - axis - 1) / length).astype(dtype))


def _count(op: Builder, x: Tensor, axis: int) -> Tensor:
    """The size of one axis as a scalar."""
    size = x.shape[axis] if x.shape is not None else None
    if isinstance(size, int):
        return op.tensor(np.asarray(size))
    return op.Squeeze(op.Shape(x, start=axis, end=axis + 1), [0])


def _positions(
    op: Builder, signal: Tensor, step: Tensor, window: Tensor | None, length: Tensor | None
) -> Tensor:
    """Where in the signal every frame reads, (frames, length)."""
    steps, given = constant_ints(step), constant_ints(length)
    sizes = given if length is not None else (signal.shape or (None,))[1:] if window is None else window.shape
    if steps is None or not sizes or not isinstance(sizes[0], int):
        raise UnsupportedOp(f"STFT: the frames' step or length is unknown before running. {TRACED}")
    last = op.Sub(axis_size(op, signal, 1), [sizes[0]])
    count = op.Squeeze(op.Add(op.Div(last, steps), [1]), [0])
    starts = op.Mul(op.Range(np.asarray(0), count, np.asarray(1)), steps)
    return op.Add(op.Unsqueeze(starts, [1]), np.arange(sizes[0]))


def _stft(
    op: Builder,
    signal: Tensor,
    step: Tensor,
    window: Tensor | None = None,
    length: Tensor | None = None,
    *,
    onesided: int,
) -> Tensor:
    frames = op.Gather(signal, _positions(op, signal, step, window, length), axis=1)
    weighted = frames if window is None else op.Mul(frames, op.Unsqueeze(window, [1]))
    return op.DFT(weighted, None, np.asarray(2), onesided=onesided)


@register
class STFT(Multilinear):
    inactive = frozenset({1, 3})
    torch = tensorflow = Composed(_stft)

    def vjp(op, g, y, signal, step, window=None, length=None, *, onesided):
        positions = replace(_positions(op, signal, step, window, length), shape=(None, None))
        frames = op.Gather(signal, positions, axis=1)
        parts = None if signal.shape is None else signal.shape[-1]
        # Only the axis of the transform and the number of parts matter.
        like = replace(frames, shape=(None, None, None, parts))
        frame = op.Squeeze(op.Shape(positions, start=1), [0])
        of_weighted = _of_signal(op, g, like, frame, 2, 0, onesided)

        def of_signal():
            of_frames = of_weighted if window is None else op.Mul(of_weighted, op.Unsqueeze(window, [1]))
            return ungather(op, of_frames, signal, positions, 1)

        return (
            of_signal,
            None,
            lambda: op.ReduceSum(op.Mul(of_weighted, frames), [0, 1, 3], keepdims=0),
            None,
        )


def _window(coefficients: Sequence[float], size: int, periodic: int, output_datatype: int) -> np.ndarray:
    """Σ (−1)ᵏ aₖ cos(2πkn/N); a periodic window is one point short of a symmetric one."""
    angle = 2 * np.pi * np.arange(size) / max(size if periodic else size - 1, 1)
    values = sum((-1) ** k * a * np.cos(k * angle) for k, a in enumerate(coefficients))
    return np.asarray(values, helper.tensor_dtype_to_np_dtype(output_datatype))


def _window_forms(*coefficients: float) -> tuple[Any, Any]:
    def torch(torch, size, *, output_datatype, periodic):
        return torch.as_tensor(
            _window(coefficients, ints(size)[0], periodic, output_datatype), device=size.device
        )

    def tensorflow(tf, size, *, output_datatype, periodic):
        return tf.constant(_window(coefficients, ints(size)[0], periodic, output_datatype))

    return torch, tensorflow


@register
class HannWindow(PiecewiseConstant):
    torch, tensorflow = _window_forms(0.5, 0.5)


@register
class HammingWindow(PiecewiseConstant):
    torch, tensorflow = _window_forms(25 / 46, 21 / 46)


@register
class BlackmanWindow(PiecewiseConstant):
    torch, tensorflow = _window_forms(0.42, 0.5, 0.08)


@register
class MelWeightMatrix(PiecewiseConstant):
    def torch(torch, bins, *rest, output_datatype):
        return torch.as_tensor(_mel([x.item() for x in (bins, *rest)], output_datatype), device=bins.device)

    def tensorflow(tf, *given, output_datatype):
        return tf.constant(_mel([x.numpy().item() for x in given], output_datatype))


def _mel(given: Sequence[float], output_datatype: int) -> np.ndarray:
    """Triangles of equal width in mel over the frequencies of a onesided spectrum: (frequencies, bins)."""
    bins, length, rate, lower, upper = given
    low, high = (2595 * np.log10(1 + edge / 700) for edge in (lower, upper))
    mels = low + np.arange(bins + 2) * (high - low) / (bins + 2)
    edges = np.floor((length + 1) * 700 * (10 ** (mels / 2595) - 1) / rate)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    at = np.arange(int(length) // 2 + 1)[:, None]
    rise, fall = (at - left) / np.maximum(centre - left, 1), (right - at) / np.maximum(right - centre, 1)
    triangles = np.where(at == centre, 1.0, np.clip(np.where(at < centre, rise, fall), 0, 1))
    return np.asarray(triangles, helper.tensor_dtype_to_np_dtype(output_datatype))
