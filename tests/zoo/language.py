"""Small language models with random weights: decoders like GPT-2 and Llama, and an encoder like BERT.

Their arguments have the names of transformers: input_ids, attention_mask, position_ids. A decoder also continues caches
of keys and values, as exporters write it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

VOCABULARY, WIDTH, HEADS, LENGTH = 23, 12, 2, 16
LARGE = -1e9


class Attention(nn.Module):
    """Attention of some heads over fewer heads of keys and values, with rotary positions where they are asked for."""

    def __init__(self, groups: int = HEADS, *, rotary: bool = False) -> None:
        super().__init__()
        self.size, self.groups, self.rotary = WIDTH // HEADS, groups, rotary
        self.q, self.out = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.k, self.v = (nn.Linear(WIDTH, groups * self.size) for _ in range(2))

    def forward(self, x: Any, mask: Any, positions: Any, past: Any = None) -> tuple[Any, Any]:
        q, k, v = (
            layer(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        if self.rotary:
            q, k = (rotated(one, positions) for one in (q, k))
        if past is not None:
            k, v = (torch.cat([before, now], dim=2) for before, now in zip(past, (k, v), strict=True))
        cache = (k, v)
        k, v = (one.repeat_interleave(HEADS // self.groups, dim=1) for one in cache)
        weights = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(self.size) + mask, -1)
        return self.out((weights @ v).transpose(1, 2).flatten(2)), cache


def rotated(x: Any, positions: Any) -> Any:
    """Rotary embedding of (N, heads, T, size)."""
    half = x.shape[-1] // 2
    angles = positions[:, None, :, None] / 10000 ** (torch.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)


class RootMeanSquare(nn.Module):
    """RMSNorm written out, as transformers does."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.8, 1.2, width))

    def forward(self, x: Any) -> Any:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class Block(nn.Module):
    """Attention and a perceptron, each after a norm. gated: as in Llama."""

    def __init__(self, *, gated: bool) -> None:
        super().__init__()
        norm = RootMeanSquare if gated else nn.LayerNorm
        self.norms = nn.ModuleList(norm(WIDTH) for _ in range(2))
        self.attention = Attention(1 if gated else HEADS, rotary=gated)
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.gate = nn.Linear(WIDTH, 2 * WIDTH) if gated else None

    def forward(self, x: Any, mask: Any, positions: Any, past: Any = None) -> tuple[Any, Any]:
        attended, cache = self.attention(self.norms[0](x), mask, positions, past)
        x = x + attended
        y = self.norms[1](x)
        if self.gate is None:
            return x + self.down(nn.functional.gelu(self.up(y), approximate="tanh")), cache
        return x + self.down(nn.functional.silu(self.gate(y)) * self.up(y)), cache


class Decoder(nn.Module):
    """GPT-2 in small, or Llama in small (gated); the logits share the weights of the embedding."""

    def __init__(self, *, gated: bool = False, layers: int = 2) -> None:
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, WIDTH)
        self.wpe = None if gated else nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block(gated=gated) for _ in range(layers))
        self.norm = (RootMeanSquare if gated else nn.LayerNorm)(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        # Of random numbers with a spread that makes tokens matter.
        nn.init.normal_(self.wte.weight, std=0.7)
        self.head.weight = self.wte.weight

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any = None, past: Any = None) -> Any:
        if position_ids is None:
            position_ids = (attention_mask.cumsum(1) - 1).clamp(min=0)
        x = self.wte(input_ids)
        if self.wpe is not None:
            x = x + self.wpe(position_ids)
        new, whole = input_ids.shape[1], attention_mask.shape[1]
        rows = torch.arange(new)[:, None] + (whole - new)
        seen = (torch.arange(whole)[None] <= rows)[None, None] & (attention_mask[:, None, None] > 0)
        mask = torch.where(seen, 0.0, LARGE)
        caches = []
        for number, block in enumerate(self.blocks):
            x, cache = block(
                x, mask, position_ids, None if past is None else past[2 * number : 2 * number + 2]
            )
            caches += cache
        logits = self.head(self.norm(x))
        return logits if past is None else (logits, *caches)


class Cached(nn.Module):
    """A decoder with its caches as inputs and outputs, in the order of optimum's exports."""

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, *past: Any) -> Any:
        return self.decoder(input_ids, attention_mask, position_ids, past)


class Encoder(nn.Module):
    """BERT in small: words, positions and token types, and a classifier on the first token."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.word, self.position, self.kind = (nn.Embedding(size, WIDTH) for size in (VOCABULARY, LENGTH, 2))
        self.norm = nn.LayerNorm(WIDTH)
        self.blocks = nn.ModuleList(Block(gated=False) for _ in range(2))
        self.pooler, self.classifier = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, classes)
        nn.init.normal_(self.word.weight, std=0.7)

    def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
        positions = torch.arange(input_ids.shape[1])[None]
        x = self.norm(self.word(input_ids) + self.position(positions) + self.kind(token_type_ids))
        mask = torch.where(attention_mask[:, None, None] > 0, 0.0, LARGE)
        for block in self.blocks:
            x, _ = block(x, mask, positions)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))
