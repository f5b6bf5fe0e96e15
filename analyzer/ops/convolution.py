"""Conv and ConvTranspose, in any number of spatial axes. Their gradients as nodes are in conv_gradient.py."""

from __future__ import annotations

from analyzer.ops import conv_gradient
from analyzer.ops.linear import bilinear_residual
from analyzer.ops.registry import Affine, register
from analyzer.ops.support import ones, per_channel, rank_of
from analyzer.ops.windows import windows


@register
class Conv(Affine):
    def torch(torch, x, w, b=None, *, auto_pad, dilations, group, kernel_shape, pads, strides):
        kernel = w.shape[2:]
        axes = windows(
            x.shape[2:], kernel, auto_pad=auto_pad, dilations=dilations, pads=pads, strides=strides
        )
        padding = [axis.before for axis in axes]
        if padding != [axis.after for axis in axes] or min(padding) < 0:
            # torch lists the last axis first, and pads both sides of Conv alike.
            x = torch.nn.functional.pad(x, [p for a in reversed(axes) for p in (a.before, a.after)])
            padding = 0
        convolve = getattr(torch.nn.functional, f"conv{len(kernel)}d")
        return convolve(x, w, b, [a.stride for a in axes], padding, [a.dilation for a in axes], groups=group)

    def tensorflow(tf, x, w, b=None, *, auto_pad, dilations, group, kernel_shape, pads, strides):
        axes = windows(
            x.shape[2:], w.shape[2:], auto_pad=auto_pad, dilations=dilations, pads=pads, strides=strides
        )
        x = tf.pad(x, [(0, 0), (0, 0)] + [(max(a.before, 0), max(a.after, 0)) for a in axes])
        for position, a in enumerate(axes, 2):
            x = _cut(tf, x, position, max(-a.before, 0), max(-a.after, 0))
        y = _tf_convolve(tf, x, w, [a.stride for a in axes], [a.dilation for a in axes], group)
        return y if b is None else y + tf.reshape(b, [-1, *ones(len(axes))])

    def vjp(op, g, y, x, w, b=None, *, auto_pad, dilations, group, kernel_shape, pads, strides):
        shape = conv_gradient.kernel_of(w, kernel_shape)
        sizes = x.shape[2:] if x.shape is not None else [None] * len(shape)
        axes = windows(sizes, shape, auto_pad=auto_pad, dilations=dilations, pads=pads, strides=strides)
        return (
            lambda: conv_gradient.of_input(op, g, x, w, y, axes, group),
            lambda: conv_gradient.of_weight(op, g, x, w, axes, group),
            lambda: conv_gradient.of_bias(op, g, len(axes)),
        )

    def residual(op, active, y, x, w, b=None, **attributes):
        rank = rank_of(w)
        bias = None if b is None else per_channel(op, b, rank)
        return bilinear_residual(op, active[:2], y, bias, len(active) > 2 and active[2])


@register
class ConvTranspose(Affine):
    def torch(torch, x, w, b=None, *, group, dilations, strides, kernel_shape, **rest):
        axes = conv_gradient.transposed_windows(x.shape[2:], w.shape[2:], strides, dilations, **rest)
        transpose = getattr(torch.nn.functional, f"conv_transpose{len(axes)}d")
        steps, spread = [a.stride for a in axes], [a.dilation for a in axes]
        full = transpose(x, w, None, steps, 0, 0, group, spread)
        cuts = [
            p
            for a, size in reversed(list(zip(axes, full.shape[2:], strict=True)))
            for p in (-a.before, a.size - (size - a.before))
        ]
        y = torch.nn.functional.pad(full, cuts)
        return y if b is None else y + b.reshape(-1, *ones(len(axes)))

    def tensorflow(tf, x, w, b=None, *, group, dilations, strides, kernel_shape, **rest):
        axes = conv_gradient.transposed_windows(x.shape[2:], w.shape[2:], strides, dilations, **rest)
        for position, a in enumerate(axes, 2):
            x = _tf_insert_zeros(tf, x, position, a.stride)
        reach = [a.extent - 1 for a in axes]
        x = tf.pad(x, [(0, 0), (0, 0)] + [(r, r) for r in reach])
        full = _tf_convolve(
            tf, x, _tf_transposed(tf, w, group), ones(len(axes)), [a.dilation for a in axes], group
        )
        for position, a in enumerate(axes, 2):
            size = full.shape[position]
            behind = a.size - (size - a.before)
            full = _cut(tf, full, position, max(a.before, 0), max(-behind, 0))
            grow = [(0, 0)] * (len(axes) + 2)
            grow[position] = (max(-a.before, 0), max(behind, 0))
            full = tf.pad(full, grow)
        return full if b is None else full + tf.reshape(b, [-1, *ones(len(axes))])

    def vjp(op, g, y, x, w, b=None, *, group, dilations, strides, kernel_shape, **rest):
        shape = conv_gradient.kernel_of(w, kernel_shape)
        sizes = x.shape[2:] if x.shape is not None else [None] * len(shape)
        axes = conv_gradient.transposed_windows(sizes, shape, strides, dilations, **rest)
        steps, spread = [a.stride for a in axes], [a.dilation for a in axes]
        wide, axes = conv_gradient.uncropped(op, g, x, axes, **rest)
        pads = [a.before for a in axes] + [a.after for a in axes]

        def of_x():
            full = op.Conv(wide, w, strides=steps, dilations=spread, group=group, pads=pads)
            # Output padding of a stride or more makes room for windows that x does not have.
            places = [i for i, a in enumerate(axes, 2) if _may_exceed(a, rest["output_padding"], i - 2)]
            return conv_gradient.cut_to(op, full, x, places)

        return (
            of_x,
            lambda: conv_gradient.of_weight(op, x, wide, w, axes, group),
            lambda: conv_gradient.of_bias(op, g, len(axes)),
        )

    def residual(op, active, y, x, w, b=None, **attributes):
        bias = None if b is None else per_channel(op, b, rank_of(w))
        return bilinear_residual(op, active[:2], y, bias, len(active) > 2 and active[2])


def _may_exceed(axis, output_padding, position):
    return bool(output_padding) and output_padding[position] >= axis.stride


def _cut(tf, x, position, before, after):
    """x without its first and last elements along one axis."""
    if not before and not after:
        return x
    begins, sizes = [0] * len(x.shape), [-1] * len(x.shape)
    begins[position], sizes[position] = before, x.shape[position] - before - after
    return tf.slice(x, begins, sizes)


def _tf_insert_zeros(tf, x, position, step):
    if step == 1:
        return x
    shape = list(x.shape)
    spread = tf.pad(
        tf.expand_dims(x, position + 1),
        [(0, 0)] * (position + 1) + [(0, step - 1)] + [(0, 0)] * (len(shape) - position - 1),
    )
    shape[position] *= step
    merged = tf.reshape(spread, shape)
    return _cut(tf, merged, position, 0, step - 1)


def _tf_transposed(tf, w, group):
    """The weight of the convolution that a ConvTranspose by w is: flipped, channels swapped in each group."""
    spatial = list(w.shape[2:])
    split = tf.reshape(w, [group, w.shape[0] // group, w.shape[1], *spatial])
    swapped = tf.transpose(split, [0, 2, 1, *range(3, 3 + len(spatial))])
    merged = tf.reshape(swapped, [group * w.shape[1], w.shape[0] // group, *spatial])
    return tf.reverse(merged, list(range(2, 2 + len(spatial))))


def _tf_convolve(tf, x, w, strides, dilations, group):
    """A convolution without pads. TensorFlow's CPU kernels want channels last, and have no 1-D."""
    rank = len(strides)
    if rank == 1:
        x, w = tf.expand_dims(x, 2), tf.expand_dims(w, 2)
        y = _tf_convolve(tf, x, w, [1, *strides], [1, *dilations], group)
        return tf.squeeze(y, 2)
    if rank == 2 and strides[0] != strides[1] and 1 in w.shape[2:]:
        # Where the kernel is one wide the stride there is a choice of rows: equal strides have more kernels.
        position = 2 if w.shape[2] == 1 else 3
        x = tf.gather(x, list(range(0, x.shape[position], strides[position - 2])), axis=position)
        strides = [1, strides[1]] if position == 2 else [strides[0], 1]
        if group == x.shape[1] and group > 1:
            strides = [max(strides)] * 2
            x = _tf_insert_zeros(tf, x, position, strides[0])
    if max(dilations) > 1 and (max(strides) > 1 or rank > 2 or group > 1):
        # The CPU kernels take one or the other: put the dilation's zeros into the kernel.
        for position, dilation in enumerate(dilations, 2):
            w = _tf_insert_zeros(tf, w, position, dilation)
        dilations = ones(rank)
    last = [0, *range(2, 2 + rank), 1]
    x = tf.transpose(x, last)
    if rank == 2 and group > 1 and group == x.shape[-1] and strides[0] == strides[1]:
        kernel = tf.reshape(tf.transpose(w, [2, 3, 0, 1]), [*w.shape[2:], group, w.shape[0] // group])
        y = tf.nn.depthwise_conv2d(x, kernel, [1, *strides, 1], "VALID")
    else:
        # Stated, because conv3d's gradient knows no default.
        layout = "NHWC" if rank == 2 else "NDHWC"
        kernel = tf.transpose(w, [*range(2, 2 + rank), 1, 0])
        pieces = zip(tf.split(x, group, -1), tf.split(kernel, group, -1), strict=True)
        parts = [tf.nn.convolution(u, k, strides, "VALID", layout, dilations) for u, k in pieces]
        y = parts[0] if group == 1 else tf.concat(parts, -1)
    return tf.transpose(y, [0, rank + 1, *range(1, rank + 1)])
