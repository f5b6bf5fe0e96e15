"""Blocks of random networks on sequences of vectors, (N, T, D)."""

from __future__ import annotations

import numpy as np

from tests.zoo.draft import Draft, Value
from tests.zoo.random_blocks import Kind, activation, block

HEADS, HEAD_WIDTH = 2, 4


def projected(draft: Draft, x: Value, width: int) -> Value:
    """A linear map of every token."""
    y = draft.layer("MatMul", x, draft.normal(x.shape[2], width), None)
    return draft.op("Add", y, draft.normal(width, scale=0.3)) if draft.chance(0.8) else y


@block(Kind.TOKENS)
def token_norm(draft: Draft, x: Value) -> Value:
    """Layer or root-mean-square normalization of every token."""
    gains = draft.gains(x.shape[2])
    if draft.chance(0.3):
        return draft.op("RMSNormalization", x, gains)
    shifts = draft.normal(x.shape[2], scale=0.3) if draft.chance(0.8) else None
    return draft.op("LayerNormalization", x, gains, shifts, epsilon=draft.pick([1e-5, 1e-2]))


@block(Kind.TOKENS)
def perceptron(draft: Draft, x: Value) -> Value:
    """Two layers on every token, and a shortcut."""
    return draft.op("Add", x, projected(draft, activation(draft, projected(draft, x, 10)), x.shape[2]))


@block(Kind.TOKENS)
def gated_perceptron(draft: Draft, x: Value) -> Value:
    """A gate times a value, as language models have it."""
    gate, value = (projected(draft, x, 8) for _ in range(2))
    return projected(draft, draft.op("Mul", activation(draft, gate), value), 6)


@block(Kind.TOKENS)
@block(Kind.TOKENS)
def attention(draft: Draft, x: Value) -> Value:
    """Attention of several heads: MatMul and Softmax, with a bias, a causal mask or none."""

    def heads(perm: list[int]) -> Value:
        split = draft.reshape(projected(draft, x, HEADS * HEAD_WIDTH), x.width, HEADS, HEAD_WIDTH)
        return draft.op("Transpose", split, perm=perm)

    query, key, value = heads([0, 2, 1, 3]), heads([0, 2, 3, 1]), heads([0, 2, 1, 3])
    scores = draft.op("Div", draft.op("MatMul", query, key), 2.0)
    mask = draft.pick(["none", "bias", "causal"])
    if mask == "bias":
        scores = draft.op("Add", scores, draft.normal(HEADS, x.width, x.width))
    elif mask == "causal":
        ahead = np.triu(np.full((x.width, x.width), -np.inf, np.float32), 1)
        scores = draft.op("Add", scores, ahead)
    mixed = draft.op("MatMul", draft.op("Softmax", scores, axis=-1), value)
    y = draft.reshape(draft.op("Transpose", mixed, perm=[0, 2, 1, 3]), x.width, HEADS * HEAD_WIDTH)
    return draft.op("Add", x, projected(draft, y, x.shape[2]))


@block(Kind.TOKENS)
def attention_op(draft: Draft, x: Value) -> Value:
    """The Attention op, some with fewer heads for keys and values, some causal."""
    groups = draft.pick([1, HEADS])
    query = projected(draft, x, HEADS * HEAD_WIDTH)
    key, value = (projected(draft, x, groups * HEAD_WIDTH) for _ in range(2))
    y = draft.op(
        "Attention",
        query,
        key,
        value,
        q_num_heads=HEADS,
        kv_num_heads=groups,
        is_causal=int(draft.chance(0.4)),
    )
    return draft.op("Add", x, projected(draft, y, x.shape[2]))


@block(Kind.TOKENS)
def positions(draft: Draft, x: Value) -> Value:
    """A vector added to every place, or a rotation of every place."""
    if draft.chance():
        return draft.op("Add", x, draft.normal(*x.shape[1:], scale=0.5))
    angles = np.arange(x.width)[:, None] * np.array([1.0, 0.3])
    wide = projected(draft, x, HEADS * HEAD_WIDTH)
    sizes = draft.op("Concat", draft.op("Shape", x, start=0, end=1), [1, 1], axis=0)
    tables = (function(angles).astype(np.float32)[None] for function in (np.cos, np.sin))
    cosines, sines = (draft.op("Expand", table, sizes) for table in tables)
    return draft.op("RotaryEmbedding", wide, cosines, sines, num_heads=HEADS)


@block(Kind.TOKENS)
def class_token(draft: Draft, x: Value) -> Value:
    """A learnt token in front of the others, which then looks at them."""
    samples = draft.op("Shape", x, start=0, end=1)
    shape = draft.op("Concat", samples, [1, x.shape[2]], axis=0)
    token = draft.op("Expand", draft.normal(1, 1, x.shape[2]), shape)
    return attention(draft, draft.op("Concat", token, x, axis=1))


@block(Kind.TOKENS)
def recurrent(draft: Draft, x: Value) -> Value:
    """LSTM, GRU or RNN, in one direction or both, that gives every step."""
    op_type = draft.pick(["LSTM", "GRU", "RNN"])
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type]
    direction = draft.pick(["forward", "reverse", "bidirectional"])
    ways, hidden = (2 if direction == "bidirectional" else 1), 4
    attributes = {"linear_before_reset": int(draft.chance())} if op_type == "GRU" else {}
    width = x.shape[2]
    y = draft.op(
        op_type,
        draft.op("Transpose", x, perm=[1, 0, 2]),
        draft.normal(ways, gates * hidden, width, scale=float(1 / np.sqrt(width))),
        draft.normal(ways, gates * hidden, hidden, scale=0.5),
        draft.normal(ways, 2 * gates * hidden, scale=0.3),
        hidden_size=hidden, direction=direction, **attributes,
    )  # fmt: skip
    return draft.reshape(draft.op("Transpose", y, perm=[2, 0, 1, 3]), x.width, ways * hidden)


@block(Kind.TOKENS)
def mixed_tokens(draft: Draft, x: Value) -> Value:
    """A linear map over the tokens, or a convolution along them."""
    turned = draft.op("Transpose", x, perm=[0, 2, 1])
    if draft.chance():
        y = activation(draft, draft.layer("MatMul", turned, draft.normal(x.width, x.width), None))
    else:
        weight = draft.normal(x.shape[2], x.shape[2], 3)
        y = draft.layer("Conv", turned, weight, x.shape[2], pads=[2, 0])
    return draft.op("Transpose", y, perm=[0, 2, 1])


@block(Kind.TOKENS)
def paired(draft: Draft, x: Value) -> Value:
    """Every token against every other by an Einsum, weighted by what they share."""
    likeness = draft.op("Einsum", x, x, equation="nid,njd->nij")
    weights = draft.op("Softmax", draft.op("Mul", likeness, 0.3), axis=2)
    return draft.op("Einsum", weights, x, equation="nij,njd->nid")


@block(Kind.TOKENS)
def rearranged_tokens(draft: Draft, x: Value) -> Value:
    """Tokens taken, turned round, accumulated or dropped."""
    choice = draft.pick(["Gather", "CumSum", "Slice", "Identity"])
    if choice == "Gather":
        return draft.op("Gather", x, draft.rng.integers(0, x.width, min(x.width + 1, 8)), axis=1)
    if choice == "CumSum":
        return draft.op("CumSum", x, np.array(1))
    if choice == "Slice":
        return draft.op("Slice", x, [-1], [-100], [1], [-1])
    return draft.op("Identity", x)


@block(Kind.TOKENS, Kind.TABLE)
def averaged(draft: Draft, x: Value) -> Value:
    """The average, the largest, the sum, or the last token, which has seen all others behind a causal mask."""
    choice = draft.pick(["ReduceMean", "ReduceMax", "ReduceSum", "ReduceLogSumExp", "last"])
    if choice == "last":
        return draft.op("Gather", x, np.array(-1), axis=1)
    return draft.op(choice, x, [1], keepdims=0)


@block(Kind.TOKENS, Kind.TABLE)
def last_state(draft: Draft, x: Value) -> Value:
    """The last hidden state of an LSTM."""
    width, hidden = x.shape[2], 5
    turned = draft.op("Transpose", x, perm=[1, 0, 2])
    weight = draft.normal(1, 4 * hidden, width, scale=float(1 / np.sqrt(width)))
    recurrence = draft.normal(1, 4 * hidden, hidden, scale=0.5)
    bias = draft.normal(1, 8 * hidden, scale=0.3)
    _, state = draft.ops("LSTM", 2, turned, weight, recurrence, bias, hidden_size=hidden)
    return draft.op("Squeeze", state, [0])
