"""Normalizations in primitives: LayerNormalization, RMSNormalization, Softmax and LogSoftmax over any axes.

Reads a Region with sums over axes; gives the nodes that stand in its place. Scale and shift are read off the region's
own values, ε among its constants; the result is held to two further inputs. Sources: Ba, Kiros & Hinton 2016; Zhang &
Sennrich 2019.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import helper

from converters.draft import Draft
from converters.joins.region import Region
from converters.joins.values import NORMALIZATIONS, REDUCTIONS, axes_of, evaluate, normal, softmax
from converters.splice import inherit_origin

_LARGEST = 1 << 16
_TOLERANCE = 1e-5


def normalization(draft: Draft, region: Region) -> list[onnx.NodeProto] | None:
    """The nodes in a region's place, with its result's name; None where it is no op's function."""
    shape = draft.shape(region.entry)
    if not shape or len(region.nodes) == 1 or region.moves:
        return None
    axes = _axes(draft, region, len(shape))
    if not axes:
        return None
    extents = [shape[axis] for axis in axes]
    sizes = [size if isinstance(size, int) else 2 for size in shape]
    if not all(isinstance(size, int) and size > 1 for size in extents) or np.prod(sizes) == 0:
        return None
    # Scale and shift lie along the normalised axes: of the others two positions are enough.
    sizes = [size if axis in axes else 2 for axis, size in enumerate(sizes)]
    if np.prod(sizes) > _LARGEST:
        return None
    rng = np.random.default_rng(0)
    points = [0.3 + 2 * rng.standard_normal(sizes) for _ in range(3)]
    values = [evaluate(region.nodes, draft.constants, region.entry, x) for x in (*points, np.zeros(sizes))]
    if any(y is None or y.shape != tuple(sizes) for y in values):
        return None
    known = [y for y in values if y is not None]
    return _softmaxes(draft, region, axes, points, known) or _norms(draft, region, axes, points, known)


def _axes(draft: Draft, region: Region, rank: int) -> tuple[int, ...] | None:
    """The axes that every reduction of the region sums over."""
    found = {axes_of(node, rank, draft.constants) for node in region.nodes if node.op_type in REDUCTIONS}
    return found.pop() if len(found) == 1 else None


def _agree(pairs: Iterator[tuple[np.ndarray, np.ndarray]]) -> bool:
    return all(np.abs(a - b).max() <= _TOLERANCE * max(1.0, float(np.abs(b).max())) for a, b in pairs)


def _softmaxes(
    draft: Draft,
    region: Region,
    axes: Sequence[int],
    points: list[np.ndarray],
    values: list[np.ndarray],
) -> list[onnx.NodeProto] | None:
    if len(axes) != 1:
        return None
    for op_type in ("Softmax", "LogSoftmax"):
        pairs = zip(values, points, strict=False)
        expected = ((y, softmax(x, axes)) for y, x in pairs)
        if op_type == "LogSoftmax":
            expected = ((y, np.log(e)) for y, e in expected)
        if _agree(expected):
            last = region.last
            nodes = [helper.make_node(op_type, [region.entry], list(last.output), last.name, axis=axes[0])]
            inherit_origin(nodes, last)
            return nodes
    return None


def _norms(
    draft: Draft,
    region: Region,
    axes: Sequence[int],
    points: list[np.ndarray],
    values: list[np.ndarray],
) -> list[onnx.NodeProto] | None:
    for epsilon in _small_numbers(draft, region):
        for op_type in ("LayerNormalization", "RMSNormalization"):
            normals = [normal(x, axes, epsilon, centre=op_type == "LayerNormalization") for x in points]
            others = [axis for axis in range(points[0].ndim) if axis not in axes]
            # Of zeros the shift is all that is left; every position along the other axes has the same.
            shift = values[-1].take([0], others[0]) if others else values[-1]
            for axis in others[1:]:
                shift = shift.take([0], axis)
            scale = (values[0] - values[-1]) / normals[0]
            for axis in others:
                scale = scale.take([0], axis)
            if op_type == "RMSNormalization" and np.abs(shift).max() > _TOLERANCE:
                continue
            if _agree((y, n * scale + shift) for y, n in zip(values, normals, strict=False)):
                return _normalized(draft, region, op_type, axes, epsilon, scale, shift)
    return None


def _small_numbers(draft: Draft, region: Region) -> list[float]:
    """What ε can be: the positive numbers among the constants, and none at all."""
    found = {0.0}
    for node in region.nodes:
        for name in node.input:
            value = draft.constants.get(name)
            if value is not None and value.size == 1 and 0 < float(value.reshape(())) < 1:
                found.add(float(value.reshape(())))
        if node.op_type in NORMALIZATIONS:
            found.update(entry.f for entry in node.attribute if entry.name == "epsilon")
    return sorted(found, reverse=True)


def _normalized(
    draft: Draft,
    region: Region,
    op_type: str,
    axes: Sequence[int],
    epsilon: float,
    scale: np.ndarray,
    shift: np.ndarray,
) -> list[onnx.NodeProto]:
    """The op over the last axes; where the region's are others, between two Transposes."""
    last, rank = region.last, scale.ndim
    order = [axis for axis in range(rank) if axis not in axes] + list(axes)
    moved = order != list(range(rank))
    extents = [scale.shape[axis] for axis in axes]
    kind = draft.type_of(region.entry)
    assert kind is not None
    dtype = helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
    stem, inputs = last.output[0], [region.entry]
    nodes = []
    if moved:
        inputs = [draft.fresh(f"{stem}.axes_last")]
        nodes.append(helper.make_node("Transpose", [region.entry], inputs, perm=order))
    for role, array in (("scale", scale), ("shift", shift)):
        if role == "scale" or np.abs(array).max() > 0:
            inputs.append(draft.fresh(f"{stem}.{role}"))
            draft.constants[inputs[-1]] = array.reshape(extents).astype(dtype)
    result = draft.fresh(f"{stem}.normalized") if moved else stem
    first = rank - len(axes)
    nodes.append(helper.make_node(op_type, list(inputs), [result], last.name, axis=first, epsilon=epsilon))
    if moved:
        back = np.argsort(order).tolist()
        nodes.append(helper.make_node("Transpose", [result], [stem], perm=back))
    inherit_origin(nodes, last)
    return nodes
