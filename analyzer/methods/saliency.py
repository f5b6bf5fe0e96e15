"""FullGrad's saliency map as ONNX: |term|, rescaled per sample, summed over channels, resized, added.

Rescaling is per sample and resizing is linear, so channels are summed before resizing, and layers of one
resolution are added before they are resized together: the published map for a small part of its cost.
Source: Srinivas & Fleuret 2019, section 4, and the authors' post-processing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analyzer.emitter import Emitter
from analyzer.graph import Graph, Shape, Tensor
from analyzer.layout import channel_axes, input_channel_axis


@dataclass(frozen=True)
class Term:
    """A term of the decomposition, and the tensor whose shape and axes it has."""

    like: str
    value: Tensor


def saliency_map(
    op: Emitter, graph: Graph, terms: Sequence[Term], image: str, *, align_corners: bool, epsilon: float
) -> Tensor:
    """Emit the map (N, *spatial of the image) of terms that have the image's rank; the image's is the first."""
    shape = graph.tensors[image].shape
    assert shape is not None
    if len(shape) < 3:
        return _rescaled(op, graph, terms[0], None, epsilon)
    axes = channel_axes(graph)
    image_axis = input_channel_axis(graph, image, axes)
    by_resolution: dict[Shape | str, list[Tensor]] = {}
    for term in terms:
        axis = image_axis if term.like == image else axes.get(term.like, 1)
        like = graph.tensors[term.like].shape
        assert like is not None
        spatial = tuple(size for index, size in enumerate(like) if index not in (0, axis))
        # Sizes that are not known may differ: such a layer is resized by itself.
        key: Shape | str = spatial if None not in spatial else term.like
        by_resolution.setdefault(key, []).append(_rescaled(op, graph, term, axis, epsilon))
    image_spatial = tuple(size for index, size in enumerate(shape) if index not in (0, image_axis))
    maps = []
    for resolution, layers in by_resolution.items():
        total = layers[0] if len(layers) == 1 else op.Sum(*layers)
        if resolution != image_spatial:
            total = _resized(op, total, graph.tensors[image], image_axis, align_corners)
        maps.append(total)
    return maps[0] if len(maps) == 1 else op.Sum(*maps)


def _rescaled(op: Emitter, graph: Graph, term: Term, axis: int | None, epsilon: float) -> Tensor:
    """ψ(t) = (|t| − min) / (max − min + ε) per sample, summed over the channel axis if there is one."""
    shape = graph.tensors[term.like].shape
    assert shape is not None
    magnitude = op.Abs(term.value)
    features = list(range(1, len(shape)))
    low = op.ReduceMin(magnitude, features, keepdims=1)
    high = op.ReduceMax(magnitude, features, keepdims=1)
    scale = op.Add(op.Sub(high, low), epsilon)
    if axis is None:
        return op.Div(op.Sub(magnitude, low), scale)
    size = op.Shape(term.value, start=axis, end=axis + 1)
    channels = op.Cast(size, to=op.dtype_of(term.value))
    summed = op.Sub(op.ReduceSum(magnitude, [axis], keepdims=1), op.Mul(low, channels))
    return op.Squeeze(op.Div(summed, scale), [axis])


def _resized(op: Emitter, layer: Tensor, image: Tensor, image_axis: int, align_corners: bool) -> Tensor:
    """A map (N, *spatial) at the image's resolution, by (bi)linear interpolation."""
    channel = op.Unsqueeze(layer, [1])
    rank = image.rank
    spatial = [op.Shape(image, start=i, end=i + 1) for i in range(1, rank) if i != image_axis]
    sizes = op.Concat(op.Shape(channel, start=0, end=2), *spatial, axis=0)
    mode = "align_corners" if align_corners else "half_pixel"
    resized = op.Resize(channel, None, None, sizes, mode="linear", coordinate_transformation_mode=mode)
    return op.Squeeze(resized, [1])
