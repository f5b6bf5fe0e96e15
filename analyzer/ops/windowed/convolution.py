"""Conv and ConvTranspose, in any number of spatial axes. Their gradients as nodes are in conv_gradient.py."""

from __future__ import annotations

from analyzer.ops.linear import bilinear_residual
from analyzer.ops.registry import Affine, register
from analyzer.ops.support import ones, per_channel, rank_of
from analyzer.ops.windowed import conv_gradient
from analyzer.ops.windowed.convolution_tensorflow import convolve, cut, insert_zeros, transposed_kernel
from analyzer.ops.windowed.windows import windows


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
            x = cut(tf, x, position, max(-a.before, 0), max(-a.after, 0))
        y = convolve(tf, x, w, [a.stride for a in axes], [a.dilation for a in axes], group)
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
            x = insert_zeros(tf, x, position, a.stride)
        reach = [a.extent - 1 for a in axes]
        x = tf.pad(x, [(0, 0), (0, 0)] + [(r, r) for r in reach])
        full = convolve(
            tf, x, transposed_kernel(tf, w, group), ones(len(axes)), [a.dilation for a in axes], group
        )
        for position, a in enumerate(axes, 2):
            size = full.shape[position]
            behind = a.size - (size - a.before)
            full = cut(tf, full, position, max(a.before, 0), max(-behind, 0))
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
