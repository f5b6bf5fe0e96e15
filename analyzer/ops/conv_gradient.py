"""The gradients of Conv and ConvTranspose as ONNX nodes, in the form that runs fastest on ONNX Runtime.

With p the pad, s the stride, d the dilation and y[o] = Σ_k w[k] x[o·s + k·d − p], the gradient of the input
is

    gx[i] = Σ_k w[k] g[(i + p − k·d) / s]        over the k where the division is exact.

- stride 1: one Conv of g by the flipped kernel.
- strided, 2-D: with i + p = q·s + r, gx = Σ_j w[r + s·j] g[q − j]: one stride-1 Conv makes all s·s phases r
  as channels, DepthToSpace weaves them together.
- strided with a kernel of one element: a Conv, then zeros in between.
- the rest: ConvTranspose.
The kernel's rearrangement is emitted as nodes: on a constant weight a runtime folds them when it loads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analyzer.emitter import Emitter
from analyzer.errors import UnsupportedOp
from analyzer.graph import Shape, Tensor
from analyzer.ops.support import insert_zeros, ones, place, static
from analyzer.ops.windows import Axis, begin

_END = 2**62


def kernel_of(w: Tensor, kernel_shape: Sequence[int] | None) -> list[int]:
    """The kernel's spatial sizes: from the attribute, else from the weight. Else raises UnsupportedOp."""
    if kernel_shape:
        return list(kernel_shape)
    sizes = w.shape[2:] if w.shape is not None else (None,)
    if not all(isinstance(size, int) for size in sizes):
        raise UnsupportedOp(f"the kernel's size of weight {w.name!r} is unknown before running")
    return [int(size) for size in sizes if isinstance(size, int)]


def of_input(
    op: Emitter, g: Tensor, x: Tensor, w: Tensor, y: Tensor, axes: Sequence[Axis], group: int
) -> Tensor:
    """The gradient of Conv's input."""
    strides = [a.stride for a in axes]
    if max(strides) == 1:
        return _stride_one(op, g, x, w, y, axes, group)
    if all(a.kernel == 1 for a in axes):
        lead: Shape = x.shape[:2] if x.shape is not None else (None, None)
        small = op.Conv(g, _turned(op, w, axes, group), group=group)
        spread, shape = insert_zeros(op, small, (*lead, *_spatial(y, axes)), [1, 1, *strides])
        return place(op, spread, shape, _begins(op, axes, x), x, _places(axes))
    plain = all(a.dilation == 1 and a.before is not None for a in axes)
    if plain and len(axes) == 2 and strides[0] == strides[1] and static(w) is not None:
        return _by_phases(op, g, x, w, y, axes, group)
    return _by_transpose(op, g, x, w, y, axes, group)


def of_weight(op: Emitter, g: Tensor, x: Tensor, w: Tensor, axes: Sequence[Axis], group: int) -> Tensor:
    """The gradient of Conv's weight: a Conv of x by g, batch and channels swapped, over the kernel.

    Stride and dilation change places. With x and g swapped it is the gradient of ConvTranspose's weight.
    """
    swap = [1, 0, *range(2, 2 + len(axes))]
    images, kernels = _grouped_batch(op, x, group, len(axes)), op.Transpose(g, perm=swap)
    before: list[int] = []
    after: list[int] = []
    if any(a.before is None for a in axes):
        begins = [b if isinstance(b, Tensor) else op.tensor([b]) for b in _begins(op, axes, x)]
        # Zeros behind the input cannot hurt: the surplus is cut below.
        pads = op.Concat(*begins, [a.extent - 1 for a in axes], axis=0)
        images = op.Pad(images, pads, None, _places(axes))
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


def of_bias(op: Emitter, g: Tensor, rank: int) -> Tensor:
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
) -> list[Axis]:
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
        size = wanted[i]
        if size is None and auto_pad in ("SAME_UPPER", "SAME_LOWER") and out is not None:
            size = out * s
        before: int | None = 0 if auto_pad == "VALID" else given[i]
        after: int | None = 0 if auto_pad == "VALID" else given[rank + i]
        if size is not None or auto_pad.startswith("SAME"):
            total = None if full is None or size is None else full - size
            half = None if total is None else total // 2
            before = half if auto_pad == "SAME_UPPER" or half is None or total is None else total - half
            after = None if total is None or before is None else total - before
        elif full is not None and before is not None and after is not None:
            size = full - before - after
        axes.append(Axis(kernel[i], s, spread[i], before, after, size, out))
    return axes


def cut_to(op: Emitter, t: Tensor, like: Tensor, places: Sequence[int]) -> Tensor:
    """t cut at its end along some axes to the size of `like`."""
    if not places:
        return t
    sizes = [like.shape[place] for place in places] if like.shape is not None else [None]
    known = [size for size in sizes if isinstance(size, int)]
    ends = known if len(known) == len(sizes) else op.Gather(op.Shape(like), list(places), axis=0)
    return op.Slice(t, [0] * len(places), ends, list(places))


def _stride_one(
    op: Emitter, g: Tensor, x: Tensor, w: Tensor, y: Tensor, axes: Sequence[Axis], group: int
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


def _by_phases(
    op: Emitter, g: Tensor, x: Tensor, w: Tensor, y: Tensor, axes: Sequence[Axis], group: int
) -> Tensor:
    s = axes[0].stride
    kernel, channels = _phase_kernel(op, w, axes, group)
    first, heads, tails, shape = [], [], [], []
    for a, out in zip(axes, _spatial(y, axes), strict=True):
        assert a.before is not None
        reach = -(-a.kernel // s) - 1
        q = min(a.before // s, reach)
        if a.size is not None and isinstance(out, int):
            tail = max(0, -(-(a.size + a.before) // s) - out)
            shape.append((out + tail - q) * s)
        else:
            # size + before ≤ (out − 1) s + kernel + s − 1 − after bounds the rows that are needed.
            tail = max(0, -(-(a.kernel + s - 1 - (a.after or 0)) // s) - 1)
            shape.append(None)
        first.append(q)
        heads.append(reach - q)
        tails.append(tail)
    phases = op.Conv(g, kernel, pads=heads + tails, group=group)
    woven = op.DepthToSpace(phases, blocksize=s, mode="CRD")
    begins = [(a.before or 0) - q * s for a, q in zip(axes, first, strict=True)]
    return place(op, woven, (None, channels, *shape), begins, x, _places(axes))


def _phase_kernel(op: Emitter, w: Tensor, axes: Sequence[Axis], group: int) -> tuple[Tensor, int]:
    """The kernel whose output channels are the channels of the input times the phases, and those channels."""
    known = static(w)
    assert known is not None
    s, (m, c) = axes[0].stride, known[:2]
    j = [-(-a.kernel // s) for a in axes]
    missing = [n * s - a.kernel for n, a in zip(j, axes, strict=True)]
    if any(missing):
        w = op.Pad(w, [0, 0, *missing], None, [2, 3])
    split = op.Reshape(w, [group, m // group, c, j[0], s, j[1], s])
    moved = op.Transpose(split, perm=[0, 2, 4, 6, 1, 3, 5])
    kernel = op.Reshape(moved, [group * c * s * s, m // group, *j])
    return _flipped(op, kernel, [2 + i for i, n in enumerate(j) if n > 1]), group * c


def _by_transpose(
    op: Emitter, g: Tensor, x: Tensor, w: Tensor, y: Tensor, axes: Sequence[Axis], group: int
) -> Tensor:
    shared: dict[str, Any] = {
        "strides": [a.stride for a in axes],
        "dilations": [a.dilation for a in axes],
        "group": group,
    }
    extra = [_shortfall(a, out) for a, out in zip(axes, _spatial(y, axes), strict=True)]
    if all(e is not None for e in extra):
        pads = [a.before for a in axes] + [a.after for a in axes]
        return op.ConvTranspose(g, w, pads=pads, output_padding=extra, **shared)
    full = op.ConvTranspose(g, w, **shared)
    lead: Shape = x.shape[:2] if x.shape is not None else (None, None)
    sizes = [
        (out - 1) * a.stride + a.extent if isinstance(out, int) else None
        for a, out in zip(axes, _spatial(y, axes), strict=True)
    ]
    return place(op, full, (*lead, *sizes), _begins(op, axes, x), x, _places(axes))


def _shortfall(a: Axis, out: int | str | None) -> int | None:
    """What ConvTranspose must be told to add to reach the input's size; None where it cannot be told."""
    if a.size is None or not isinstance(out, int) or a.before is None or a.after is None:
        return None
    extra = a.size - ((out - 1) * a.stride + a.extent - a.before - a.after)
    return extra if 0 <= extra < a.stride and min(a.before, a.after) >= 0 else None


def _turned(op: Emitter, w: Tensor, axes: Sequence[Axis], group: int) -> Tensor:
    """The weight flipped along its spatial axes, input and output channels swapped within each group."""
    rank = len(axes)
    spatial = [a.kernel for a in axes]
    if group > 1:
        known = static(w)
        if known is None:
            raise UnsupportedOp(f"the shape of the grouped weight {w.name!r} is unknown before running")
        m, c = known[:2]
        if m != group or c != 1:
            split = op.Reshape(w, [group, m // group, c, *spatial])
            moved = op.Transpose(split, perm=[0, 2, 1, *range(3, 3 + rank)])
            w = op.Reshape(moved, [group * c, m // group, *spatial])
    else:
        w = op.Transpose(w, perm=[1, 0, *range(2, 2 + rank)])
    return _flipped(op, w, [2 + i for i, size in enumerate(spatial) if size > 1])


def _flipped(op: Emitter, w: Tensor, places: Sequence[int]) -> Tensor:
    if not places:
        return w
    count = len(places)
    return op.Slice(w, [-1] * count, [-_END] * count, list(places), [-1] * count)


def _grouped_batch(op: Emitter, x: Tensor, group: int, rank: int) -> Tensor:
    """x (N, G·C, …) as (C, G·N, …)."""
    if group == 1:
        return op.Transpose(x, perm=[1, 0, *range(2, 2 + rank)])
    tail = op.Shape(x, start=2)
    split = op.Reshape(x, op.Concat([0, group, -1], tail, axis=0))
    moved = op.Transpose(split, perm=[2, 1, 0, *range(3, 3 + rank)])
    channels = op.Div(op.Shape(x, start=1, end=2), [group])
    return op.Reshape(moved, op.Concat(channels, [-1], tail, axis=0))


def _spatial(y: Tensor, axes: Sequence[Axis]) -> list[int | str | None]:
    """The spatial sizes of the output, from shape inference or from the windows."""
    inferred = y.shape[2:] if y.shape is not None else (None,) * len(axes)
    return [a.out if a.out is not None else size for a, size in zip(axes, inferred, strict=True)]


def _begins(op: Emitter, axes: Sequence[Axis], x: Tensor) -> list[int | Tensor]:
    return [begin(op, a, x, position) for position, a in enumerate(axes, 2)]


def _places(axes: Sequence[Axis]) -> list[int]:
    return list(range(2, 2 + len(axes)))
