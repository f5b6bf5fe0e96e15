"""Quantization and products of integers: rounded to codes, so that their derivative is zero almost everywhere.

A code c stands for (c − zero point)·scale. Scales and zero points hold for a whole tensor, along an axis, or for
blocks along it. A derivative straight through the rounding is taken on the graph in floats that
converters/straight_through.py makes, not here.
"""

from __future__ import annotations

import numpy as np
from onnx import helper

from analyzer.ops.registry import PiecewiseConstant, register
from analyzer.ops.support import ones
from analyzer.ops.windowed.convolution import Conv


def _limits(dtype):
    if np.dtype(dtype).kind not in "iu":
        raise ValueError(f"codes of {np.dtype(dtype).name} have no form here. Fix: use backend='onnxruntime'")
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _numpy_type(dtype):
    """The NumPy type of a torch or TensorFlow type."""
    return np.dtype(getattr(dtype, "as_numpy_dtype", None) or str(dtype).removeprefix("torch."))


def _code_type(zero, output_dtype):
    if zero is not None:
        return _numpy_type(zero.dtype)
    return np.dtype(helper.tensor_dtype_to_np_dtype(output_dtype) if output_dtype else np.uint8)


def _torch_spread(torch, v, x, axis, block_size=0):
    """A scale or zero point, shaped to broadcast to x."""
    v = torch.as_tensor(v)
    if block_size:
        return torch.narrow(torch.repeat_interleave(v, block_size, axis), axis, 0, x.shape[axis])
    shape = ones(x.ndim)
    if v.numel() > 1:
        shape[axis] = -1
    return v.reshape(shape)


def _tf_spread(tf, v, x, axis, block_size=0):
    if block_size:
        return tf.gather(tf.repeat(v, block_size, axis), tf.range(x.shape[axis]), axis=axis)
    shape = ones(len(x.shape))
    if v.shape.num_elements() > 1:
        shape[axis] = -1
    return tf.reshape(v, shape)


@register
class QuantizeLinear(PiecewiseConstant):
    quantizes = True

    def torch(torch, x, scale, zero=None, *, axis, block_size, output_dtype, **attributes):
        kind = _code_type(zero, output_dtype)
        y = torch.round(x / _torch_spread(torch, scale, x, axis, block_size))
        if zero is not None:
            y = y + _torch_spread(torch, zero.to(x.dtype), x, axis, block_size)
        return torch.clamp(y, *_limits(kind)).to(getattr(torch, kind.name))

    def tensorflow(tf, x, scale, zero=None, *, axis, block_size, output_dtype, **attributes):
        kind = _code_type(zero, output_dtype)
        x = tf.cast(x, scale.dtype)
        y = tf.round(x / _tf_spread(tf, scale, x, axis, block_size))
        if zero is not None:
            y = y + _tf_spread(tf, tf.cast(zero, x.dtype), x, axis, block_size)
        return tf.cast(tf.clip_by_value(y, *_limits(kind)), tf.as_dtype(kind))


@register
class DequantizeLinear(PiecewiseConstant):
    def torch(torch, x, scale, zero=None, *, axis, block_size, output_dtype):
        y = x.to(scale.dtype)
        if zero is not None:
            y = y - _torch_spread(torch, zero.to(scale.dtype), x, axis, block_size)
        return y * _torch_spread(torch, scale, x, axis, block_size)

    def tensorflow(tf, x, scale, zero=None, *, axis, block_size, output_dtype):
        y = tf.cast(x, scale.dtype)
        if zero is not None:
            y = y - _tf_spread(tf, tf.cast(zero, scale.dtype), x, axis, block_size)
        return y * _tf_spread(tf, scale, x, axis, block_size)


@register
class DynamicQuantizeLinear(PiecewiseConstant):
    quantizes = True
    several_outputs = True

    # The range holds 0; ONNX Runtime gives a tensor of zeros the scale 1. Scale and zero point are
    # measured, not learned: no derivative passes through them.
    def torch(torch, x):
        x = x.detach()
        low, high = torch.clamp(x.min(), max=0), torch.clamp(x.max(), min=0)
        scale = torch.where(high == low, 1, (high - low) / 255)
        zero = torch.round(torch.clamp(-low / scale, 0, 255))
        y = torch.clamp(torch.round(x / scale) + zero, 0, 255)
        return y.to(torch.uint8), scale, zero.to(torch.uint8)

    def tensorflow(tf, x):
        x = tf.stop_gradient(x)
        low, high = tf.minimum(tf.reduce_min(x), 0), tf.maximum(tf.reduce_max(x), 0)
        scale = tf.where(high == low, tf.ones_like(high), (high - low) / 255)
        zero = tf.round(tf.clip_by_value(-low / scale, 0, 255))
        y = tf.clip_by_value(tf.round(x / scale) + zero, 0, 255)
        return tf.cast(y, tf.uint8), scale, tf.cast(zero, tf.uint8)


def _rows(zero):
    """A zero point of each row of the left operand, as a column."""
    return zero[..., None] if len(zero.shape) == 1 and zero.shape[0] > 1 else zero


def _torch_product(torch, a, b, a_zero, b_zero):
    """Sums of products of integers, exact in double precision."""
    a = a.double() if a_zero is None else a.double() - _rows(a_zero.double())
    b = b.double() if b_zero is None else b.double() - b_zero.double()
    return torch.matmul(a, b)


def _tf_product(tf, a, b, a_zero, b_zero):
    wide = [None if t is None else tf.cast(t, tf.float64) for t in (a, b, a_zero, b_zero)]
    a = wide[0] if a_zero is None else wide[0] - _rows(wide[2])
    b = wide[1] if b_zero is None else wide[1] - wide[3]
    return tf.matmul(a, b)


@register
class MatMulInteger(PiecewiseConstant):
    def torch(torch, a, b, a_zero=None, b_zero=None):
        return _torch_product(torch, a, b, a_zero, b_zero).to(torch.int32)

    def tensorflow(tf, a, b, a_zero=None, b_zero=None):
        return tf.cast(_tf_product(tf, a, b, a_zero, b_zero), tf.int32)


def _torch_convolved(torch, x, w, x_zero, w_zero, bias, attributes):
    x = x.double() if x_zero is None else x.double() - x_zero.double()
    if w_zero is not None:
        w = w.double() - _torch_spread(torch, w_zero.double(), w, 0)
    return Conv.torch(torch, x, w.double(), None if bias is None else bias.double(), **attributes)


def _tf_convolved(tf, x, w, x_zero, w_zero, bias, attributes):
    x, w = tf.cast(x, tf.float64), tf.cast(w, tf.float64)
    x = x if x_zero is None else x - tf.cast(x_zero, tf.float64)
    if w_zero is not None:
        w = w - _tf_spread(tf, tf.cast(w_zero, tf.float64), w, 0)
    return Conv.tensorflow(tf, x, w, None if bias is None else tf.cast(bias, tf.float64), **attributes)


@register
class ConvInteger(PiecewiseConstant):
    def torch(torch, x, w, x_zero=None, w_zero=None, **attributes):
        return _torch_convolved(torch, x, w, x_zero, w_zero, None, attributes).to(torch.int32)

    def tensorflow(tf, x, w, x_zero=None, w_zero=None, **attributes):
        return tf.cast(_tf_convolved(tf, x, w, x_zero, w_zero, None, attributes), tf.int32)


def _torch_codes(torch, y, zero):
    y = torch.round(y) + zero.to(y.dtype)
    return torch.clamp(y, *_limits(_numpy_type(zero.dtype))).to(zero.dtype)


def _tf_codes(tf, y, zero):
    y = tf.round(y) + tf.cast(zero, y.dtype)
    return tf.cast(tf.clip_by_value(y, *_limits(_numpy_type(zero.dtype))), zero.dtype)


@register
class QLinearMatMul(PiecewiseConstant):
    def torch(torch, a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero):
        y = _torch_product(torch, a, b, a_zero, b_zero) * (_rows(a_scale) * b_scale / y_scale)
        return _torch_codes(torch, y, y_zero)

    def tensorflow(tf, a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero):
        factor = tf.cast(_rows(a_scale) * b_scale / y_scale, tf.float64)
        return _tf_codes(tf, _tf_product(tf, a, b, a_zero, b_zero) * factor, y_zero)


@register
class QLinearConv(PiecewiseConstant):
    def torch(torch, x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, b=None, **attributes):
        sums = _torch_convolved(torch, x, w, x_zero, w_zero, b, attributes)
        return _torch_codes(torch, sums * _torch_spread(torch, x_scale * w_scale / y_scale, sums, 1), y_zero)

    def tensorflow(tf, x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, b=None, **attributes):
        sums = _tf_convolved(tf, x, w, x_zero, w_zero, b, attributes)
        factor = _tf_spread(tf, tf.cast(x_scale * w_scale / y_scale, tf.float64), sums, 1)
        return _tf_codes(tf, sums * factor, y_zero)
