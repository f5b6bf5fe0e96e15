"""Rules of ops that move elements: the move itself, applied to the labels, or no move where they are equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analyzer.graph.samples.labels import FREE, Labels, in_full, join, over, packed
from analyzer.graph.samples.rules import Rule, Step, Unknown, everything


def _reshaped(step: Step) -> Sequence[Labels]:
    data, shape, out = step.part(0), step.shape(), step.output_shape()
    if np.prod(shape) != np.prod(out):
        # What a file states of a shape may be wrong.
        raise Unknown(step.node.outputs[0])
    if all(size == 1 for size in data.shape[1:]) and out and shape[:1] == out[:1]:
        return [data.reshape(-1, *(1,) * (len(out) - 1))]
    return [packed(in_full(data, shape).reshape(out))]


def _transposed(step: Step) -> Sequence[Labels]:
    return [step.part(0).transpose(step.node.attributes["perm"])]


def _sliced(step: Step) -> Sequence[Labels]:
    labels = step.part(0)
    if all(size == 1 for size in labels.shape):
        return [labels]
    starts, ends, axes, steps = (step.constant(index) for index in range(1, 5))
    assert starts is not None and ends is not None
    named = range(len(starts)) if axes is None else axes
    strides = np.ones(len(starts), np.int64) if steps is None else steps
    for start, end, axis, stride in zip(starts, ends, named, strides, strict=True):
        if labels.shape[axis] > 1:
            size = labels.shape[axis]
            stop = None if stride < 0 and end < -size else int(end)
            labels = labels.take(np.arange(size)[slice(int(start), stop, int(stride))], int(axis))
    return [packed(labels)]


def _split(step: Step) -> Sequence[Labels]:
    axis, labels = step.axis(), step.part(0)
    if labels.shape[axis] == 1:
        return [labels] * len(step.node.outputs)
    ends = np.cumsum([step.output_shape(k)[axis] for k in range(len(step.node.outputs))])
    return [packed(piece) for piece in np.split(labels, ends[:-1], axis)]


def _concatenated(step: Step) -> Sequence[Labels]:
    parts = [part for part in step.labels if part is not None]
    axis = int(step.node.attributes["axis"]) % parts[0].ndim
    shape = tuple(np.max([part.shape for part in parts], axis=0))
    if all(np.array_equal(part, parts[0]) for part in parts[1:]) and parts[0].shape[axis] == 1:
        return [parts[0]]
    pieces = []
    for index, part in enumerate(parts):
        wide = [step.shape(index)[axis] if k == axis else size for k, size in enumerate(shape)]
        pieces.append(in_full(part, wide))
    return [packed(np.concatenate(pieces, axis))]


def _gathered(step: Step) -> Sequence[Labels]:
    data, positions, axis = step.part(0), step.part(1), step.axis()
    if data.shape[axis] > 1:
        if (positions != FREE).any():
            return everything(step)
        indices = step.constant(1)
        assert indices is not None
        return [packed(np.asarray(data.take(indices, axis)))]
    spread = positions.reshape(*(1,) * axis, *positions.shape, *(1,) * (data.ndim - axis - 1))
    rest = data.reshape(*data.shape[:axis], *(1,) * positions.ndim, *data.shape[axis + 1 :])
    return [join(rest, spread)]


def _gathered_elements(step: Step) -> Sequence[Labels]:
    data, positions, axis = step.part(0), step.part(1), step.axis()
    if data.shape[axis] > 1:
        if (positions != FREE).any():
            return everything(step)
        indices, full = step.constant(1), in_full(data, step.shape())
        assert indices is not None
        cut = tuple(slice(None) if k == axis else slice(0, size) for k, size in enumerate(indices.shape))
        return [packed(np.take_along_axis(full[cut], indices % full.shape[axis], axis))]
    wide = [k for k, size in enumerate(data.shape) if size > 1]
    if any(step.shape(0)[k] != step.shape(1)[k] for k in wide):
        return everything(step)
    return [join(data, positions)]


def _gathered_tuples(step: Step) -> Sequence[Labels]:
    """GatherND: elements, or slices, at coordinates."""
    data, positions = step.part(0), step.part(1)
    lead = int(step.node.attributes.get("batch_dims") or 0)
    depth = step.shape(1)[-1]
    if any(size > 1 for size in data.shape[lead : lead + depth]):
        if lead or (positions != FREE).any():
            return everything(step)
        indices = step.constant(1)
        assert indices is not None
        return [packed(in_full(data, step.shape())[tuple(np.moveaxis(indices, -1, 0))])]
    rows = over(positions, [positions.ndim - 1]).squeeze(-1)
    tail = data.shape[lead + depth :]
    own = data.reshape(*data.shape[:lead], *(1,) * (rows.ndim - lead), *tail)
    return [join(own, rows.reshape(*rows.shape, *(1,) * len(tail)))]


def _scattered(step: Step) -> Sequence[Labels]:
    """ScatterND and ScatterElements at known places: the updates' labels where they land."""
    if step.labels[1] is None or (step.part(1) != FREE).any():
        return everything(step)
    indices = step.constant(1)
    assert indices is not None
    data, updates = in_full(step.part(0), step.shape()).copy(), in_full(step.part(2), step.shape(2))
    if step.node.op_type == "ScatterND":
        places: Any = tuple(np.moveaxis(indices, -1, 0))
    else:
        axis = step.axis()
        places = list(np.indices(indices.shape))
        places[axis] = indices
        places = tuple(places)
    if (step.node.attributes.get("reduction") or "none") == "none":
        data[places] = updates
        return [packed(data)]
    flat = np.arange(data.size).reshape(data.shape)[places].reshape(-1)
    found = data.reshape(-1)
    for place, label in zip(flat, updates.reshape(-1), strict=True):
        found[place] = join(found[place : place + 1], np.asarray([label]))[0]
    return [packed(found.reshape(data.shape))]


def _expanded(step: Step) -> Sequence[Labels]:
    # The rank of the target shape is its number of elements.
    rank = step.shape(1)[0]
    return [step.part(0).reshape(*(1,) * (rank - step.part(0).ndim), *step.part(0).shape)]


def _tiled(step: Step) -> Sequence[Labels]:
    labels, shape, out = step.part(0), step.shape(), step.output_shape()
    times = [b // a if size > 1 and a else 1 for a, b, size in zip(shape, out, labels.shape, strict=True)]
    return [np.tile(labels, times)]


def _padded(step: Step) -> Sequence[Labels]:
    labels = step.part(0)
    pads, axes = step.constant(1), step.constant(3)
    assert pads is not None
    named = range(labels.ndim) if axes is None else [int(axis) % labels.ndim for axis in axes]
    widths = [(0, 0)] * labels.ndim
    for position, axis in enumerate(named):
        if labels.shape[axis] > 1:
            widths[axis] = (int(pads[position]), int(pads[position + len(pads) // 2]))
    if not any(map(any, widths)):
        return [labels]
    if any(width < 0 for pair in widths for width in pair):
        return everything(step)
    mode: Any = step.node.attributes.get("mode") or "constant"
    if mode == "constant":
        return [packed(np.pad(labels, widths, constant_values=FREE))]
    return [packed(np.pad(labels, widths, mode=mode))]


def _one_hot(step: Step) -> Sequence[Labels]:
    positions = step.part(0)
    axis = int(step.node.attributes.get("axis", -1)) % (positions.ndim + 1)
    return [np.expand_dims(positions, axis)]


def _reversed(step: Step) -> Sequence[Labels]:
    given = step.node.attributes
    batch, time = int(given["batch_axis"]), int(given["time_axis"])
    data, lengths = over(step.part(0), [time]), step.part(1)
    return [join(data, lengths.reshape([-1 if k == batch else 1 for k in range(data.ndim)]))]


MOVES: dict[str, Rule] = {
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshaped),
    "Transpose": _transposed,
    "Slice": _sliced,
    "Split": _split,
    "Concat": _concatenated,
    "Gather": _gathered,
    "GatherElements": _gathered_elements,
    "GatherND": _gathered_tuples,
    "ScatterND": _scattered,
    "ScatterElements": _scattered,
    "Expand": _expanded,
    "Tile": _tiled,
    "Pad": _padded,
    "OneHot": _one_hot,
    "ReverseSequence": _reversed,
}
