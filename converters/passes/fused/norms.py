"""Layer normalizations of ONNX Runtime: with a residual connection before them, without a mean, of embeddings."""

from __future__ import annotations

from typing import Any

from converters.graph.expansion import Expander, expands


@expands("LayerNormalization")
def layer_normalization(op: Expander, x: str, scale: str, bias: str | None = None, **attributes: Any) -> Any:
    inputs = [x, scale] + ([bias] if bias else [])
    return op.emit("LayerNormalization", inputs, outputs=max(2, len(op.node.output)), **attributes)


@expands("SimplifiedLayerNormalization")
def simplified_layer_normalization(
    op: Expander, x: str, scale: str, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> str:
    return str(op.RMSNormalization(x, scale, axis=axis, epsilon=epsilon, stash_type=stash_type))


@expands("SkipLayerNormalization")
def skip_layer_normalization(
    op: Expander,
    x: str,
    skip: str,
    gamma: str,
    beta: str | None = None,
    bias: str | None = None,
    *,
    epsilon: float = 1e-12,
) -> tuple[str, None, None, str]:
    total = _sum(op, x, skip, bias)
    y = op.LayerNormalization(total, gamma, *([beta] if beta else []), epsilon=epsilon)
    return y, None, None, total


@expands("SkipSimplifiedLayerNormalization")
def skip_simplified_layer_normalization(
    op: Expander, x: str, skip: str, gamma: str, bias: str | None = None, *, epsilon: float = 1e-12
) -> tuple[str, None, None, str]:
    total = _sum(op, x, skip, bias)
    return op.RMSNormalization(total, gamma, epsilon=epsilon), None, None, total


def _sum(op: Expander, x: str, skip: str, bias: str | None) -> str:
    total = op.Add(x, skip)
    return str(op.Add(total, bias) if bias else total)


@expands("EmbedLayerNormalization")
def embed_layer_normalization(
    op: Expander,
    tokens: str,
    segments: str | None,
    words: str,
    positions: str,
    segment_table: str | None,
    gamma: str,
    beta: str,
    mask: str | None = None,
    position_ids: str | None = None,
    *,
    epsilon: float = 1e-12,
    mask_index_type: int = 1,
) -> tuple[str, str, str]:
    if position_ids:
        placed = op.Gather(positions, position_ids)
    else:
        placed = op.Slice(positions, [0], op.Shape(tokens, start=1, end=2), [0])
    total = op.Add(op.Gather(words, tokens), placed)
    if segments and segment_table:
        total = op.Add(total, op.Gather(segment_table, segments))
    lengths = op.Cast(op.ReduceSum(op.Cast(mask, to=6), [1], keepdims=0), to=6) if mask else None
    if lengths is None:
        # Without a mask the runtime gives zeros, one a sample.
        lengths = op.Cast(op.ReduceSum(op.Mul(tokens, 0), [1], keepdims=0), to=6)
    return op.LayerNormalization(total, gamma, beta, epsilon=epsilon), lengths, total
