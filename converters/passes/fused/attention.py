"""Attention of ONNX Runtime: softmax(q·kᵀ·scale + masks)·v over heads, from packed or separate projections.

Each head's queries, keys and values are laid out (batch, heads, sequence, size). A mask of integers adds
`mask_filter_value` where it is 0. Refused by name: a past (its keys and values come from an earlier run).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.graph.expansion import Expander, Undetermined, expands

FLOAT, INT32, INT64 = 1, 6, 7
MASKED = -10000.0
"""What ONNX Runtime adds to the score of a masked pair, unless the node says otherwise."""


@expands("Attention")
def attention(
    op: Expander,
    x: str,
    weights: str,
    bias: str | None = None,
    mask: str | None = None,
    past: str | None = None,
    attention_bias: str | None = None,
    *,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
    mask_filter_value: float = MASKED,
    qkv_hidden_sizes: Sequence[int] | None = None,
    do_rotary: int = 0,
    past_present_share_buffer: int = 0,
) -> str:
    if past or do_rotary:
        raise op.refuse("continues an earlier run (past, do_rotary), which has no standard form")
    packed = op.MatMul(x, weights)
    if bias:
        packed = op.Add(packed, bias)
    sizes = list(qkv_hidden_sizes) if qkv_hidden_sizes else [op.size(weights, 1) // 3] * 3
    return attended_heads(
        op, x, packed, sizes, num_heads, mask, mask_filter_value, unidirectional, scale, attention_bias
    )


def attended_heads(
    op: Expander,
    x: str,
    packed: str,
    sizes: Sequence[int],
    heads: int,
    mask: str | None,
    masked: float,
    unidirectional: int,
    scale: float,
    attention_bias: str | None = None,
) -> str:
    """Attention over projections (batch, sequence, q + k + v) of these sizes; x has their batch."""
    q, k, v = (heads_first(op, t, heads) for t in op.emit("Split", [packed, list(sizes)], outputs=3, axis=-1))
    masks = _masks(op, x, q, k, mask, masked, attention_bias, unidirectional)
    return merged(op, _attended(op, q, k, v, masks, scale, sizes[0] // heads))


@expands("MultiHeadAttention")
def multi_head_attention(
    op: Expander,
    query: str,
    key: str | None = None,
    value: str | None = None,
    bias: str | None = None,
    padding: str | None = None,
    attention_bias: str | None = None,
    *,
    num_heads: int,
    scale: float = 0.0,
    unidirectional: int = 0,
    mask_filter_value: float = MASKED,
) -> str:
    if bias and (key is None or value is None):
        raise op.refuse("has a bias on packed projections, which has no expansion here")
    if key is None:  # (batch, sequence, heads, 3, size)
        q, k, v = (_unpacked(op, query, index) for index in range(3))
        size = op.size(query, 4)
    else:
        hidden = op.size(query, 2)
        size = hidden // num_heads
        biases = _split_bias(op, bias, hidden) if bias else (None, None, None)
        q = heads_first(op, _plus(op, query, biases[0]), num_heads)
        if value is None:  # (batch, sequence, heads, 2, size)
            k, v = (_unpacked(op, key, index) for index in range(2))
        elif op.rank(key) == 4:  # laid out already
            k, v = key, value
        else:
            k = heads_first(op, _plus(op, key, biases[1]), num_heads)
            v = heads_first(op, _plus(op, value, biases[2]), num_heads)
    masks = _masks(op, query, q, k, padding, mask_filter_value, attention_bias, unidirectional)
    return merged(op, _attended(op, q, k, v, masks, scale, size))


def heads_first(op: Expander, x: str, heads: int) -> str:
    """(batch, sequence, heads · size) as (batch, heads, sequence, size)."""
    return str(op.Transpose(op.Reshape(x, [0, 0, heads, -1]), perm=[0, 2, 1, 3]))


def _unpacked(op: Expander, packed: str, index: int) -> str:
    """One of the tensors packed along axis 3, as (batch, heads, sequence, size)."""
    picked = op.Gather(packed, np.asarray(index, np.int64), axis=3)
    return str(op.Transpose(picked, perm=[0, 2, 1, 3]))


def merged(op: Expander, y: str) -> str:
    """(batch, heads, sequence, size) as (batch, sequence, heads · size)."""
    return str(op.Reshape(op.Transpose(y, perm=[0, 2, 1, 3]), [0, 0, -1]))


def _plus(op: Expander, x: str, bias: str | None) -> str:
    return str(op.Add(x, bias)) if bias else x


def _split_bias(op: Expander, bias: str, hidden: int) -> tuple[str, str, str]:
    rest = op.size(bias, 0) - 2 * hidden
    first, second, third = op.emit("Split", [bias, [hidden, hidden, rest]], outputs=3, axis=0)
    return first, second, third


def _attended(op: Expander, q: str, k: str, v: str, masks: Sequence[str], scale: float, size: int) -> str:
    scores = op.MatMul(op.Mul(q, scale or size**-0.5), op.Transpose(k, perm=[0, 1, 3, 2]))
    for mask in masks:
        scores = op.Add(scores, mask)
    return str(op.MatMul(op.Softmax(scores, axis=-1), v))


def _masks(
    op: Expander,
    x: str,
    q: str,
    k: str,
    mask: str | None,
    masked: float,
    attention_bias: str | None,
    unidirectional: int,
) -> list[str]:
    """What is added to the scores (batch, heads, queries, keys); broadcastable to them."""
    found = []
    if mask:
        found.append(_additive(op, _visible(op, mask, x, k), q, masked))
    if unidirectional:
        rows, columns = op.Shape(q, start=2, end=3), op.Shape(k, start=2, end=3)
        square = op.ConstantOfShape(op.Concat(rows, columns, axis=0))
        allowed = op.Trilu(op.Add(square, 1.0), op.Squeeze(op.Sub(columns, rows), [0]), upper=0)
        found.append(_additive(op, op.Cast(allowed, to=INT32), q, float(np.finfo(np.float32).min)))
    if attention_bias:
        found.append(attention_bias)
    return found


def _additive(op: Expander, visible: str, like: str, masked: float) -> str:
    """0 where `visible` (integers) is not 0, else `masked`, in the type of `like`."""
    hidden = op.Cast(op.Equal(visible, 0), to=FLOAT)
    return str(op.CastLike(op.Mul(hidden, masked), like))


def _visible(op: Expander, mask: str, x: str, k: str) -> str:
    """A mask in any of its forms as integers that broadcast to (batch, heads, queries, keys)."""
    rank = op.rank(mask)
    if rank == 2:
        return str(op.Unsqueeze(mask, [1, 2]))
    if rank == 3:
        return str(op.Unsqueeze(mask, [1]))
    if rank == 1:
        return _within_length(op, mask, x, k)
    raise op.refuse(f"has a mask of {rank} axes, which has no expansion here")


def _within_length(op: Expander, bounds: str, x: str, k: str) -> str:
    """1 at keys within the bounds of each sample: ends (batch,), or ends and then begins (2 · batch,)."""
    given, wanted = op.draft.shape(bounds), op.draft.shape(x)
    if given is None or wanted is None or given[0] is None or wanted[0] is None:
        raise Undetermined(f"the size of {bounds!r} is unknown")
    batch, positions = wanted[0], op.Cast(bounds, to=INT64)
    columns = op.Squeeze(op.Shape(k, start=2, end=3), [0])
    places = op.Range(np.asarray(0, np.int64), columns, np.asarray(1, np.int64))
    if given[0] == batch:
        inside = op.Less(places, op.Unsqueeze(positions, [1]))
    elif isinstance(batch, int) and given[0] == 2 * batch:
        ends, begins = (
            op.Unsqueeze(half, [1])
            for half in op.emit("Split", [positions], outputs=2, axis=0, num_outputs=2)
        )
        inside = op.And(op.Less(places, ends), op.GreaterOrEqual(places, begins))
    else:
        raise op.refuse("has a mask of cumulated lengths, which has no expansion here")
    return str(op.Unsqueeze(op.Cast(inside, to=INT32), [1, 2]))
