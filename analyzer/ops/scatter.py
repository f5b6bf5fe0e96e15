"""ScatterElements and ScatterND: data with updates written, added, multiplied or compared in at indices.

Both are described by two functions, `gather` (what stands at the indices) and `scatter` (values put there), and
share their rules through them. Repeated indices without a reduction are undefined in ONNX, and so is their gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.indexing import tf_element_places, tf_positions, torch_positions
from analyzer.ops.registry import Affine, Kink, register
from analyzer.ops.support import cast, filled, is_zero, shape_of, zeros_like

_TORCH_REDUCTIONS = {"mul": "prod", "max": "amax", "min": "amin"}
GatherRule = Callable[[Tensor], Tensor]
Scatter = Callable[[Tensor, Tensor, str], Tensor]
Entries = tuple[Callable[[], Tensor], None, Callable[[], Tensor]]


class _Scatter(Affine):
    """Affine where updates are written or added; for the other reductions `_residual` states r."""

    inactive = frozenset({1})
    kinks = (Kink("equal extrema, reduction max or min", "shared evenly, data among them"),)


@register
class ScatterElements(_Scatter):
    def torch(torch, data, indices, updates, *, axis, reduction):
        index = torch_positions(torch, indices, data.shape[axis], data.device)
        if reduction == "none":
            return data.scatter(axis, index, updates)
        if reduction == "add":
            return data.scatter_add(axis, index, updates)
        return data.scatter_reduce(axis, index, updates, _TORCH_REDUCTIONS[reduction], include_self=True)

    def tensorflow(tf, data, indices, updates, *, axis, reduction):
        index = tf_positions(tf, indices, data.shape[axis])
        return _tf_scatter(tf, data, tf_element_places(tf, index, axis), updates, reduction)

    def vjp(op, g, y, data, indices, updates, *, axis, reduction):
        return _vjp(op, g, y, data, updates, reduction, *_elements(op, indices, axis))

    def residual(op, active, y, data, indices, updates, *, axis, reduction):
        return _residual(op, active, y, data, updates, reduction, *_elements(op, indices, axis))


@register
class ScatterND(_Scatter):
    def torch(torch, data, indices, updates, *, reduction):
        index = torch.as_tensor(indices, device=data.device).to(torch.int64)
        places = tuple(index.unbind(-1))
        if reduction in ("none", "add"):
            return data.index_put(places, updates, accumulate=reduction == "add")
        flat = torch.arange(data.numel(), device=data.device).reshape(data.shape)[places].reshape(-1)
        how = _TORCH_REDUCTIONS[reduction]
        reduced = data.reshape(-1).scatter_reduce(0, flat, updates.reshape(-1), how, include_self=True)
        return reduced.reshape(data.shape)

    def tensorflow(tf, data, indices, updates, *, reduction):
        sizes = tf.constant(list(data.shape)[: indices.shape[-1]], tf.int64)
        return _tf_scatter(tf, data, tf_positions(tf, indices, sizes), updates, reduction)

    def vjp(op, g, y, data, indices, updates, *, reduction):
        return _vjp(op, g, y, data, updates, reduction, *_slabs(op, indices))

    def residual(op, active, y, data, indices, updates, *, reduction):
        return _residual(op, active, y, data, updates, reduction, *_slabs(op, indices))


def _tf_scatter(tf: Any, data: Any, places: Any, updates: Any, reduction: str) -> Any:
    width = places.shape[-1]
    places = tf.reshape(places, [-1, width])
    updates = tf.reshape(updates, [-1, *data.shape[width:]])
    scatter = {
        "none": tf.tensor_scatter_nd_update,
        "add": tf.tensor_scatter_nd_add,
        "max": tf.tensor_scatter_nd_max,
        "min": tf.tensor_scatter_nd_min,
    }
    if reduction == "mul":
        # TensorFlow has no such op: one update after the other, for indices may repeat.
        for i in range(places.shape[0]):
            product = tf.gather_nd(data, places[i : i + 1]) * updates[i : i + 1]
            data = tf.tensor_scatter_nd_update(data, places[i : i + 1], product)
        return data
    return scatter[reduction](data, places, updates)


def _elements(op: Builder, indices: Tensor, axis: int) -> tuple[GatherRule, Scatter]:
    return (
        lambda t: op.GatherElements(t, indices, axis=axis),
        lambda into, values, how: op.ScatterElements(into, indices, values, axis=axis, reduction=how),
    )


def _slabs(op: Builder, indices: Tensor) -> tuple[GatherRule, Scatter]:
    return (
        lambda t: op.GatherND(t, indices),
        lambda into, values, how: op.ScatterND(into, indices, values, reduction=how),
    )


def _vjp(
    op: Builder,
    g: Tensor,
    y: Tensor,
    data: Tensor,
    updates: Tensor,
    reduction: str,
    gather: GatherRule,
    scatter: Scatter,
) -> Entries:
    if reduction == "none":
        return lambda: scatter(g, zeros_like(op, updates), "none"), None, lambda: gather(g)
    if reduction == "add":
        return lambda: g, None, lambda: gather(g)
    if reduction == "mul":
        product, zeros = _factors(op, data, updates, scatter)
        return (
            lambda: op.Mul(g, _product_of_others(op, data, product, zeros)),
            None,
            lambda: op.Mul(gather(g), _product_of_others(op, updates, gather(product), gather(zeros))),
        )
    # Of equal extrema each has the same share, the element of data among them.
    of_data, of_updates, count = _hits(op, y, data, updates, gather, scatter)
    share = op.Div(g, count)
    return lambda: op.Mul(share, of_data), None, lambda: op.Mul(gather(share), of_updates)


def _factors(op: Builder, data: Tensor, updates: Tensor, scatter: Scatter) -> tuple[Tensor, Tensor]:
    """At every position: the product of its factors that are not 0, and how many are."""
    zero_data, zero_updates = op.Equal(data, 0.0), op.Equal(updates, 0.0)
    product = scatter(op.Where(zero_data, 1.0, data), op.Where(zero_updates, 1.0, updates), "mul")
    return product, scatter(cast(op, zero_data, data), cast(op, zero_updates, data), "add")


def _product_of_others(op: Builder, factor: Tensor, product: Tensor, zeros: Tensor) -> Tensor:
    """The derivative of a product by one factor, which may itself be 0."""
    zero = op.Equal(factor, 0.0)
    others = op.Div(product, op.Where(zero, 1.0, factor))
    return op.Where(op.Equal(zeros, cast(op, zero, factor)), others, 0.0)


def _hits(
    op: Builder, y: Tensor, data: Tensor, updates: Tensor, gather: GatherRule, scatter: Scatter
) -> tuple[Tensor, Tensor, Tensor]:
    """Which elements of data and of updates are the extremum, and how many are at each position."""
    of_data = cast(op, op.Equal(data, y), y)
    of_updates = cast(op, op.Equal(updates, gather(y)), y)
    return of_data, of_updates, scatter(of_data, of_updates, "add")


def _residual(
    op: Builder,
    active: tuple[bool, ...],
    y: Tensor,
    data: Tensor,
    updates: Tensor,
    reduction: str,
    gather: GatherRule,
    scatter: Scatter,
) -> Tensor | None:
    data_moves, updates_move = active[0], active[2]
    if reduction == "mul":
        # J_data data = y, J_updates updates = y times the number of updates at the position.
        ones = filled(op, shape_of(op, updates), 1, updates)
        count = scatter(zeros_like(op, data), ones, "add")
        factor = op.Sub(0.0 if data_moves else 1.0, count)
        return op.Mul(y, factor) if updates_move else None
    if data_moves and updates_move:
        return None
    if reduction in ("max", "min"):
        of_data, _, count = _hits(op, y, data, updates, gather, scatter)
        of_constant = op.Sub(count, of_data) if data_moves else of_data
        return op.Mul(y, op.Div(of_constant, count))
    if data_moves:
        return None if is_zero(updates) else scatter(zeros_like(op, data), updates, reduction)
    if is_zero(data):
        return None
    return data if reduction == "add" else scatter(data, zeros_like(op, updates), "none")
