"""The gradients of Conv and ConvTranspose as ONNX nodes, in the form that runs fastest on ONNX Runtime.

With p the pad, s the stride, d the dilation and y[o] = Σ_k w[k] x[o·s + k·d − p], the gradient of the input
is

    gx[i] = Σ_k w[k] g[(i + p − k·d) / s]        over the k where the division is exact.

With stride 1 that is a Conv of g by the flipped kernel, which runs as fast as the forward pass; the kernel's
rearrangement is emitted as nodes, which a runtime folds when it loads a constant weight. With a stride it is
a ConvTranspose: measured on ONNX Runtime it is mostly 1.3 to 4 times faster than one Conv for all phases of
the stride with DepthToSpace. The exceptions are depthwise kernels and kernels of one element: see
zero_insertion.py and conv_phases.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Tensor
from analyzer.ops.formulas import Emitted, EmittedArrays, NumPyArrays, vector
from analyzer.ops.support import ones, static
from analyzer.ops.windowed import conv_phases
from analyzer.ops.windowed.windows import WindowAxis, pads_of
from analyzer.ops.windowed.zero_insertion import by_zeros

_END = 2**62


@dataclass(frozen=True)
class _Convolved:
    """What the gradient of a Conv's input was made from."""

    g: Tensor
    x: Tensor
    w: Tensor
    y: Tensor
    axes: tuple[WindowAxis, ...]
    group: int


def kernel_of(w: Tensor, kernel_shape: Sequence[int] | None) -> list[int]:
    """The kernel's spatial sizes: from the attribute, else from the weight. Else raises UnsupportedOp."""
    if kernel_shape:
        return list(kernel_shape)
    sizes = w.shape[2:] if w.shape is not None else (None,)
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedOp(f"the kernel's size of weight {w.name!r} is unknown before running. {TRACED}")
    return [int(size) for size in sizes if isinstance(size, int)]


def of_input(
    op: Builder, g: Tensor, x: Tensor, w: Tensor, y: Tensor, axes: Sequence[WindowAxis], group: int
) -> Tensor:
    """The gradient of Conv's input."""
    found: Tensor | None
    if all(a.stride == 1 and a.before is not None for a in axes):
        found = _stride_one(op, g, x, w, y, axes, group)
    else:
        found = by_zeros(op, g, w, x, _spatial(y, axes), axes, group)
        found = transposed(op, g, w, x, y, axes, group) if found is None else found
    return op.note(found, _Convolved(g, x, w, y, tuple(axes), group))


def of_weight(op: Builder, g: Tensor, x: Tensor, w: Tensor, axes: Sequence[WindowAxis], group: int) -> Tensor:
    """The gradient of Conv's weight: a Conv of x by g, batch and channels swapped, over the kernel.

    Stride and dilation change places. With x and g swapped it is the gradient of ConvTranspose's weight.
    """
    swap = [1, 0, *range(2, 2 + len(axes))]
    images, kernels = _grouped_batch(op, x, group, len(axes)), op.Transpose(g, perm=swap)
    before: list[int] = []
    after: list[int] = []
    if any(a.before is None for a in axes):
        begins = [pads_of(op, a, x, place)[0] for place, a in zip(_places(axes), axes, strict=True)]
        # Zeros after the input cannot hurt: the surplus is cut below.
        images = op.Pad(images, vector(op, [0, 0, *begins, 0, 0, *(a.extent - 1 for a in axes)]))
        before, after = [0] * len(axes), [0] * len(axes)
    else:
        before = [a.before for a in axes if a.before is not None]
        after = [a.after for a in axes if a.after is not None]
    slid = op.Conv(
        images,
        kernels,
        strides=[a.dilation for a in axes],
        dilations=[a.stride for a in axes],
        pads=before + after,
        group=group,
    )
    cut = op.Slice(slid, [0] * len(axes), [a.kernel for a in axes], _places(axes))
    return op.Transpose(cut, perm=swap)


def of_bias(op: Builder, g: Tensor, rank: int) -> Tensor:
    """The gradient of a bias per channel."""
    return op.ReduceSum(g, [0, *range(2, 2 + rank)], keepdims=0)


def transposed_windows(
    sizes: Sequence[Any],
    kernel: Sequence[int],
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    *,
    auto_pad: str,
    output_padding: Sequence[int] | None,
    output_shape: Sequence[int] | None,
    pads: Sequence[int] | None,
) -> list[WindowAxis]:
    """A ConvTranspose's windows, seen from its output: `size` is the output's size, `out` the input's."""
    rank = len(kernel)
    steps, spread = strides or ones(rank), dilations or ones(rank)
    extra = output_padding or [0] * rank
    given = list(pads or [0] * 2 * rank)
    wanted = list(output_shape)[-rank:] if output_shape else [None] * rank
    axes = []
    for i in range(rank):
        s, extent = steps[i], (kernel[i] - 1) * spread[i] + 1
        out = int(sizes[i]) if isinstance(sizes[i], int) else None
        full = None if out is None else (out - 1) * s + extent + extra[i]
        total: int | None
        size = wanted[i]
        before: int | None = 0 if auto_pad == "VALID" else given[i]
        after: int | None = 0 if auto_pad == "VALID" else given[rank + i]
        if size is not None or auto_pad.startswith("SAME"):
            if size is None:
                # An output of out·s leaves a pad that does not depend on the size.
                size, total = None if out is None else out * s, extent + extra[i] - s
            else:
                total = None if full is None else full - size
            before = None if total is None else int(pad_before(NumPyArrays, total, auto_pad))
            after = None if total is None or before is None else total - before
        elif full is not None and before is not None and after is not None:
            size = full - before - after
        axes.append(WindowAxis(kernel[i], s, spread[i], before, after, size, out))
    return axes


def pad_before(xp: Any, total: Any, auto_pad: str) -> Any:
    """Return the part of a total pad that lies before the output; a negative total is zeros after it."""
    return (xp.maximum(total, 0) + int(auto_pad != "SAME_UPPER")) // 2


def uncropped(
    op: Builder,
    g: Tensor,
    x: Tensor,
    axes: Sequence[WindowAxis],
    *,
    auto_pad: str,
    output_padding: Sequence[int] | None,
    **_: Any,
) -> tuple[Tensor, list[WindowAxis]]:
    """A ConvTranspose's cotangent and windows, with zeros in place of what Conv's pads cannot say.

    Conv takes neither a negative pad nor one that only the running model knows.
    """
    if all(a.before is not None and a.after is not None and min(a.before, a.after) >= 0 for a in axes):
        return g, list(axes)
    xp = EmittedArrays(op, np.int64)
    before: list[Any] = []
    after: list[Any] = []
    for i, a in enumerate(axes):
        if a.before is None or a.after is None:
            # Sizes of the running model, also where they are known: the cotangent's own shape is not.
            out, size = (Emitted(op, op.Shape(t, start=2 + i, end=3 + i)) for t in (x, g))
            total = (
                out * a.stride + (a.extent - a.stride + (output_padding[i] if output_padding else 0)) - size
            )
            before.append(pad_before(xp, total, auto_pad))
            after.append(total - before[-1])
        else:
            before.append(a.before)
            after.append(a.after)
    padded = op.Pad(g, vector(op, [*before, *after]), None, _places(axes))
    return padded, [replace(a, before=0, after=0, size=None) for a in axes]


def cut_to(
    op: Builder, t: Tensor, like: Tensor, places: Sequence[int], begins: Sequence[Any] | None = None
) -> Tensor:
    """Emit t cut along some axes to the sizes of `like`. begins: where, by default at the start of t."""
    if not places:
        return t
    starts = [0] * len(places) if begins is None else begins
    sizes = [like.shape[place] for place in places] if like.shape is not None else [None]
    if all(isinstance(one, int) for one in (*sizes, *starts)):
        ends: Any = [int(size or 0) + start for size, start in zip(sizes, starts, strict=True)]
        return op.Slice(t, list(starts), ends, list(places))
    ends, first = op.Gather(op.Shape(like), list(places), axis=0), vector(op, starts)
    return op.Slice(t, first, ends if begins is None else op.Add(first, ends), list(places))


def cropped(op: Builder, t: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor | None:
    """t less its borders (sizes per axis), where it is the gradient of a Conv's input; None where it is none.

    A Conv of what was padded is a Conv with these pads: its gradient is not computed on the pads, to be cut off.
    """
    made = op.notes.get(t.name)
    if not isinstance(made, _Convolved) or any([*before[:2], *after[:2]]):
        return None
    axes = []
    for a, front, behind in zip(made.axes, before[2:], after[2:], strict=True):
        if a.before is None or a.after is None or (a.size is None and a.stride > 1):
            return None
        size = None if a.size is None else a.size - front - behind
        axes.append(replace(a, before=a.before + front, after=a.after + behind, size=size))
    return of_input(op, made.g, made.x, made.w, made.y, axes, made.group)


def _stride_one(
    op: Builder, g: Tensor, x: Tensor, w: Tensor, y: Tensor, axes: Sequence[WindowAxis], group: int
) -> Tensor:
    turned = _turned(op, w, axes, group)
    pads: list[int] = []
    for wide in ([a.before for a in axes], [a.after for a in axes]):
        pads += [a.extent - 1 - (p or 0) for a, p in zip(axes, wide, strict=True)]
    # A pad wider than the kernel makes outputs that see no input: cut them off.
    surplus = [-min(pad, 0) for pad in pads]
    if any(surplus):
        rank = len(axes)
        ends = [-s if s else _END for s in surplus[rank:]]
        g = op.Slice(g, surplus[:rank], ends, _places(axes))
    dilations = [a.dilation for a in axes]
    return op.Conv(g, turned, pads=[max(pad, 0) for pad in pads], dilations=dilations, group=group)


def transposed(
    op: Builder, g: Tensor, w: Tensor, x: Tensor, y: Tensor, axes: Sequence[WindowAxis], group: int
) -> Tensor:
    """Spread g by the kernel over what its windows saw of x: a ConvTranspose of the spatial size of x."""
    found = conv_phases.by_phases(op, g, w, _spatial(y, axes), axes, group)
    if found is not None:
        return found
    before, after, extra = [], [], []
    open_axes = []
    for place, a, out in zip(_places(axes), axes, _spatial(y, axes), strict=True):
        before.append(a.before or 0)
        if a.size is None or a.before is None or not isinstance(out, int):
            # A stride less one makes room for every element behind the last window; the surplus is cut.
            open_axes.append(place)
            after.append(0)
            extra.append(a.stride - 1)
        else:
            surplus = (out - 1) * a.stride + a.extent - a.before - a.size
            after.append(max(surplus, 0))
            extra.append(max(-surplus, 0))
    spread = op.ConvTranspose(
        g,
        w,
        strides=[a.stride for a in axes],
        dilations=[a.dilation for a in axes],
        pads=before + after,
        output_padding=extra,
        group=group,
    )
    if all(a.before is not None for a in axes):
        return cut_to(op, spread, x, open_axes)
    begins = [
        pads_of(op, a, x, place)[0] if a.before is None else 0
        for place, a in zip(_places(axes), axes, strict=True)
    ]
    return cut_to(op, spread, x, _places(axes), begins)


def _turned(op: Builder, w: Tensor, axes: Sequence[WindowAxis], group: int) -> Tensor:
    """The weight flipped along its spatial axes, input and output channels swapped within each group."""
    rank = len(axes)
    spatial = [a.kernel for a in axes]
    if group > 1:
        known = static(w)
        if known is None:
            raise UnsupportedOp(
                f"the shape of the grouped weight {w.name!r} is unknown before running. {TRACED}"
            )
        m, c = known[:2]
        if m != group or c != 1:
            split = op.Reshape(w, [group, m // group, c, *spatial])
            moved = op.Transpose(split, perm=[0, 2, 1, *range(3, 3 + rank)])
            w = op.Reshape(moved, [group * c, m // group, *spatial])
    else:
        w = op.Transpose(w, perm=[1, 0, *range(2, 2 + rank)])
    return _flipped(op, w, [2 + i for i, size in enumerate(spatial) if size > 1])


def _flipped(op: Builder, w: Tensor, places: Sequence[int]) -> Tensor:
    if not places:
        return w
    count = len(places)
    return op.Slice(w, [-1] * count, [-_END] * count, list(places), [-1] * count)


def _grouped_batch(op: Builder, x: Tensor, group: int, rank: int) -> Tensor:
    """x (N, G·C, …) as (C, G·N, …)."""
    if group == 1:
        return op.Transpose(x, perm=[1, 0, *range(2, 2 + rank)])
    tail = op.Shape(x, start=2)
    split = op.Reshape(x, op.Concat([0, group, -1], tail, axis=0))
    moved = op.Transpose(split, perm=[2, 1, 0, *range(3, 3 + rank)])
    channels = op.Div(op.Shape(x, start=1, end=2), [group])
    return op.Reshape(moved, op.Concat(channels, [-1], tail, axis=0))


def _spatial(y: Tensor, axes: Sequence[WindowAxis]) -> list[int | str | None]:
    """The spatial sizes of the output, from shape inference or from the windows."""
    inferred = y.shape[2:] if y.shape is not None else (None,) * len(axes)
    return [a.out if a.out is not None else size for a, size in zip(axes, inferred, strict=True)]


def _places(axes: Sequence[WindowAxis]) -> list[int]:
    return list(range(2, 2 + len(axes)))
