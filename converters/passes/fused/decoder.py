"""Decoder blocks of ONNX Runtime: rotary position embedding, and attention whose heads share keys and values.

Written with the standard's RotaryEmbedding and Attention. A prompt is expanded, a continuation is refused by
name: its keys and values of the past come from an earlier run.
"""

from __future__ import annotations

import numpy as np

from converters.graph.expansion import Expander, expands
from converters.passes.fused.attention import INT64, heads_first, merged


@expands("RotaryEmbedding")
def rotary_embedding(
    op: Expander,
    x: str,
    positions: str,
    cos_cache: str,
    sin_cache: str,
    *,
    interleaved: int = 0,
    num_heads: int = 0,
    rotary_embedding_dim: int = 0,
    scale: float = 1.0,
    is_packed_batching: int = 0,
) -> str:
    if scale != 1 or is_packed_batching:
        raise op.refuse("rescales its positions or packs its batch, which has no expansion here")
    laid_out = op.rank(x) == 4
    heads = num_heads or (0 if laid_out else op.size(x, 2) // (2 * op.size(cos_cache, 1)))
    t = x if laid_out else heads_first(op, x, heads)
    if op.rank(positions) == 1:  # the position of the first token
        places = _places(op, t)
        positions = op.Unsqueeze(op.Add(places, op.Cast(positions, to=INT64)), [0])
    y = rotated(op, t, positions, cos_cache, sin_cache, interleaved, rotary_embedding_dim)
    return y if laid_out else merged(op, y)


def rotated(
    op: Expander, x: str, positions: str, cos_cache: str, sin_cache: str, interleaved: int, size: int = 0
) -> str:
    """x (batch, heads, sequence, size), turned by the angles of its positions (batch or 1, sequence)."""
    first = op.Shape(x, start=0, end=1)
    shape = op.Concat(first, op.Shape(x, start=2, end=3), axis=0)
    angles = [op.Gather(cache, op.Expand(positions, shape)) for cache in (cos_cache, sin_cache)]
    return str(op.RotaryEmbedding(x, *angles, interleaved=interleaved, rotary_embedding_dim=size))


def _places(op: Expander, x: str) -> str:
    """0, 1, … along the sequence of x (batch, heads, sequence, size)."""
    length = op.Squeeze(op.Shape(x, start=2, end=3), [0])
    return str(op.Range(np.asarray(0, np.int64), length, np.asarray(1, np.int64)))


@expands("GroupQueryAttention")
def group_query_attention(
    op: Expander,
    query: str,
    key: str | None,
    value: str | None,
    past_key: str | None,
    past_value: str | None,
    lengths: str,
    total_length: str,
    cos_cache: str | None = None,
    sin_cache: str | None = None,
    position_ids: str | None = None,
    attention_bias: str | None = None,
    *,
    num_heads: int,
    kv_num_heads: int,
    scale: float = 0.0,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    local_window_size: int = -1,
    softcap: float = 0.0,
    smooth_softmax: int = 0,
    causal: int = 1,
) -> tuple[str, str, str]:
    if any(past and not _is_empty(op, past) for past in (past_key, past_value)):
        raise op.refuse("continues an earlier run (past_key, past_value), which has no standard form")
    if local_window_size >= 0 or smooth_softmax > 0:
        raise op.refuse("attends in a window or with a smoothed softmax, which has no expansion here")
    if key is None or value is None:
        size = op.size(query, 2) // (num_heads + 2 * kv_num_heads)
        parts = [num_heads * size, kv_num_heads * size, kv_num_heads * size]
        query, key, value = op.emit("Split", [query, parts], outputs=3, axis=2)
    heads = (num_heads, kv_num_heads, kv_num_heads)
    q, k, v = (heads_first(op, x, n) for x, n in zip((query, key, value), heads, strict=True))
    if do_rotary:
        assert cos_cache is not None and sin_cache is not None
        positions = position_ids or op.Unsqueeze(_places(op, q), [0])
        q, k = (rotated(op, t, positions, cos_cache, sin_cache, rotary_interleaved) for t in (q, k))
    # Padding lies behind a prompt: no row that counts sees it, and what the others hold is undefined.
    masks = [attention_bias] if attention_bias else []
    y = op.Attention(q, k, v, *masks, is_causal=causal, scale=scale or None, softcap=softcap)
    return merged(op, y), k, v


def _is_empty(op: Expander, past: str) -> bool:
    shape = op.draft.shape(past)
    return shape is not None and len(shape) == 4 and shape[2] == 0
