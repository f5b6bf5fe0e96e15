"""A convolution in TensorFlow: channels moved last, dilations and groups in terms of the kernels that there are.

From channels-first data and an ONNX weight to channels-first data. A tape computes the gradients of those of the two
that it watches. TensorFlow's own gradient of a convolution always computes that of the weight as well. It costs as
much as that of the data, and the kernel for it is able to end the process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.ops.support import ones


def cut(tf, x, position, before, after):
    """x without its first and last elements along one axis."""
    if not before and not after:
        return x
    begins, sizes = [0] * len(x.shape), [-1] * len(x.shape)
    begins[position], sizes[position] = before, x.shape[position] - before - after
    return tf.slice(x, begins, sizes)


def insert_zeros(tf, x, position, step):
    if step == 1:
        return x
    shape = list(x.shape)
    spread = tf.pad(
        tf.expand_dims(x, position + 1),
        [(0, 0)] * (position + 1) + [(0, step - 1)] + [(0, 0)] * (len(shape) - position - 1),
    )
    shape[position] *= step
    merged = tf.reshape(spread, shape)
    return cut(tf, merged, position, 0, step - 1)


def transposed_kernel(tf, w, group):
    """The weight of the convolution that a ConvTranspose by w is: flipped, channels swapped in each group."""
    spatial = list(w.shape[2:])
    split = tf.reshape(w, [group, w.shape[0] // group, w.shape[1], *spatial])
    swapped = tf.transpose(split, [0, 2, 1, *range(3, 3 + len(spatial))])
    merged = tf.reshape(swapped, [group * w.shape[1], w.shape[0] // group, *spatial])
    return tf.reverse(merged, list(range(2, 2 + len(spatial))))


def convolve(tf, x, w, strides, dilations, group):
    """A convolution without pads. TensorFlow's CPU kernels want channels last, and have no 1-D."""
    rank = len(strides)
    if rank == 1:
        x, w = tf.expand_dims(x, 2), tf.expand_dims(w, 2)
        y = convolve(tf, x, w, [1, *strides], [1, *dilations], group)
        return tf.squeeze(y, 2)
    if rank == 2 and strides[0] != strides[1] and 1 in w.shape[2:]:
        # Where the kernel is one wide the stride there is a choice of rows: equal strides have more kernels.
        position = 2 if w.shape[2] == 1 else 3
        x = tf.gather(x, list(range(0, x.shape[position], strides[position - 2])), axis=position)
        strides = [1, strides[1]] if position == 2 else [strides[0], 1]
        if group == x.shape[1] and group > 1:
            strides = [max(strides)] * 2
            x = insert_zeros(tf, x, position, strides[0])
    if max(dilations) > 1 and (max(strides) > 1 or rank > 2 or group > 1):
        # The CPU kernels take one or the other: put the dilation's zeros into the kernel.
        for position, dilation in enumerate(dilations, 2):
            w = insert_zeros(tf, w, position, dilation)
        dilations = ones(rank)
    last = [0, *range(2, 2 + rank), 1]
    x = tf.transpose(x, last)
    if rank == 2 and group > 1 and group == x.shape[-1] and strides[0] == strides[1]:
        kernel = tf.reshape(tf.transpose(w, [2, 3, 0, 1]), [*w.shape[2:], group, w.shape[0] // group])
        y = _watched(tf, x, kernel, _Depthwise(strides))
    else:
        kernel = tf.transpose(w, [*range(2, 2 + rank), 1, 0])
        pieces = zip(tf.split(x, group, -1), tf.split(kernel, group, -1), strict=True)
        parts = [_watched(tf, u, k, _Full(strides, dilations)) for u, k in pieces]
        y = parts[0] if group == 1 else tf.concat(parts, -1)
    return tf.transpose(y, [0, rank + 1, *range(1, rank + 1)])


@dataclass(frozen=True)
class _Full:
    """A convolution that joins all channels: x (N, *spatial, I), w (*kernel, I, O). No pads."""

    strides: list[int]
    dilations: list[int]

    @property
    def _layout(self) -> str:
        return "NHWC" if len(self.strides) == 2 else "NDHWC"

    def compute(self, tf: Any, x: Any, w: Any) -> Any:
        return tf.nn.convolution(x, w, self.strides, "VALID", self._layout, self.dilations)

    def of_data(self, tf: Any, g: Any, x: Any, w: Any) -> Any:
        """The gradient at x."""
        if max(self.dilations) > 1:
            # The CPU kernel takes no dilations: the same as a convolution of g. Strides are 1 then.
            reach = [(k - 1) * d for k, d in zip(w.shape, self.dilations, strict=False)]
            padded = tf.pad(g, [(0, 0), *((r, r) for r in reach), (0, 0)])
            flipped = tf.reverse(tf.linalg.matrix_transpose(w), list(range(len(reach))))
            return self.compute(tf, padded, flipped)
        raw = tf.raw_ops.Conv2DBackpropInput if len(self.strides) == 2 else tf.raw_ops.Conv3DBackpropInputV2
        return raw(
            input_sizes=x.shape,
            filter=w,
            out_backprop=g,
            strides=[1, *self.strides, 1],
            padding="VALID",
            data_format=self._layout,
        )

    def of_weight(self, tf: Any, g: Any, x: Any, w: Any) -> Any:
        """The gradient at w."""
        products = [tf.einsum("ri,ro->io", u, v) for u, v in _taps(tf, g, x, w, self.strides, self.dilations)]
        return tf.reshape(tf.stack(products), w.shape)


@dataclass(frozen=True)
class _Depthwise:
    """A convolution of each channel alone: x (N, H, W, I), w (*kernel, I, M). No pads."""

    strides: list[int]

    def compute(self, tf: Any, x: Any, w: Any) -> Any:
        return tf.nn.depthwise_conv2d(x, w, [1, *self.strides, 1], "VALID")

    def of_data(self, tf: Any, g: Any, x: Any, w: Any) -> Any:
        """The gradient at x."""
        return tf.raw_ops.DepthwiseConv2dNativeBackpropInput(
            input_sizes=x.shape,
            filter=w,
            out_backprop=g,
            strides=[1, *self.strides, 1],
            padding="VALID",
        )

    def of_weight(self, tf: Any, g: Any, x: Any, w: Any) -> Any:
        """The gradient at w."""
        channels = list(w.shape[-2:])
        taps = _taps(tf, g, x, w, self.strides, ones(len(self.strides)))
        products = [tf.einsum("ri,rim->im", u, tf.reshape(v, [-1, *channels])) for u, v in taps]
        return tf.reshape(tf.stack(products), w.shape)


def _taps(tf: Any, g: Any, x: Any, w: Any, strides: list[int], dilations: list[int]) -> list[tuple[Any, Any]]:
    """What each element of the kernel reads of x, and the g that it adds to, as rows of channels."""
    axes = list(zip(g.shape[1:-1], strides, dilations, strict=True))
    found = []
    for tap in np.ndindex(*w.shape[: len(axes)]):
        slices = [
            slice(t * dilation, t * dilation + (count - 1) * stride + 1, stride)
            for t, (count, stride, dilation) in zip(tap, axes, strict=True)
        ]
        read = x[(slice(None), *slices)]
        found.append((tf.reshape(read, [-1, x.shape[-1]]), tf.reshape(g, [-1, g.shape[-1]])))
    return found


def _watched(tf: Any, x: Any, w: Any, convolution: _Full | _Depthwise) -> Any:
    """The convolution of x and w, recorded on a tape for those of the two that it watches."""
    # TensorFlow has no public function for this question.
    from tensorflow.python.eager.record import should_record_backprop

    rules = [(x, convolution.of_data), (w, convolution.of_weight)]
    rules = [(operand, rule) for operand, rule in rules if should_record_backprop([operand])]
    if not rules:
        return convolution.compute(tf, x, w)

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def recorded(*_: Any) -> Any:
        return convolution.compute(tf, x, w), lambda g: [rule(tf, g, x, w) for _, rule in rules]

    return recorded(*(operand for operand, _ in rules))
