"""Transformers in PyTorch, structured as published, a few units wide.

`NETWORKS[name]()` gives a network in evaluation mode and its example arguments, batch of 2. Sources: Vaswani et
al. 2017 (encoder, decoder); Dosovitskiy et al. 2021 (ViT); Liu et al. 2021 (Swin); Touvron et al. 2023 (Llama).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.draw import Network, draw, normal

CLASSES = 10


class Attention(nn.Module):
    """Multi-head attention written out: products and a softmax, or the framework's fused function."""

    def __init__(self, width: int, heads: int, *, fused: bool = False, causal: bool = False) -> None:
        super().__init__()
        self.heads, self.fused, self.causal = heads, fused, causal
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        query, key, value = (
            self._split(f(t)) for f, t in ((self.query, x), (self.key, memory), (self.value, memory))
        )
        if self.fused:
            mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=self.causal)
        else:
            scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
            if self.causal:
                hidden = torch.ones(x.shape[1], memory.shape[1], dtype=torch.bool, device=x.device).triu(1)
                scores = scores.masked_fill(hidden, -torch.inf)
            mixed = scores.softmax(-1) @ value
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm attention and feed-forward; with a memory, a decoder's block."""

    def __init__(self, width: int, heads: int, *, cross: bool = False, **options: bool) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, **options)
        if cross:
            self.norm3, self.cross = nn.LayerNorm(width), Attention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        y = self.norm1(x)
        x = x + self.attention(y, y)
        if memory is not None:
            x = x + self.cross(self.norm3(x), memory)
        return x + self.feed(self.norm2(x))


class Encoder(nn.Module):
    """Two blocks over a sequence of vectors, the mean classified."""

    def __init__(self, width: int = 16, **options: bool) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, 4, **options) for _ in range(2))
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class TorchEncoder(nn.Module):
    """PyTorch's own encoder layers and final norm."""

    def __init__(self, width: int = 16, *, norm_first: bool = False) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            width, 4, 32, activation="gelu", batch_first=True, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x)[:, 0])


class Decoder(nn.Module):
    """A causal block that reads an encoder's memory; the last position is classified."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.block = Block(width, 2, cross=True, causal=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        return self.head(self.block(x, memory)[:, -1])


class TorchDecoder(nn.Module):
    """PyTorch's own decoder layer with a causal mask."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layer = nn.TransformerDecoderLayer(width, 4, 32, batch_first=True)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.head(self.layer(x, memory, tgt_mask=mask)[:, -1])


class VisionTransformer(nn.Module):
    """Patches by a strided convolution, a class token, learned positions."""

    def __init__(self, size: int = 16, patch: int = 4, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(torch.zeros(1, (size // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(Block(width, 4, fused=True), Block(width, 4, fused=True))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x)[:, 0]))


class WindowAttention(nn.Module):
    """Attention inside windows of a map (N, H, W, C), rolled by `shift`, with relative position biases."""

    def __init__(self, width: int, heads: int, size: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        steps = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"))
        apart = (steps.flatten(1)[:, :, None] - steps.flatten(1)[:, None]) + window - 1
        self.register_buffer("index", apart[0] * (2 * window - 1) + apart[1])
        self.register_buffer("mask", self._mask(size) if shift else None)

    def _mask(self, size: int) -> Tensor:
        """−100 between positions that were no neighbours before the roll, (windows, 1, tokens, tokens)."""
        bounds = (slice(0, -self.window), slice(-self.window, -self.shift), slice(-self.shift, None))
        regions = torch.zeros(1, size, size, 1)
        for number, (rows, columns) in enumerate((r, c) for r in bounds for c in bounds):
            regions[:, rows, columns] = number
        regions = self._split(regions).squeeze(-1)
        return (regions[:, None] != regions[..., None]).float().unsqueeze(1) * -100

    def _split(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        x = x.view(n, h // self.window, self.window, w // self.window, self.window, c)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, self.window**2, c)

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        windows = self._split(torch.roll(x, (-self.shift, -self.shift), (1, 2)))
        qkv = self.qkv(windows).view(-1, self.window**2, 3, self.heads, c // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = query * (c // self.heads) ** -0.5 @ key.transpose(-2, -1)
        scores = scores + self.table[self.index].permute(2, 0, 1)
        if self.mask is not None:
            scores = (scores.unflatten(0, (n, -1)) + self.mask).flatten(0, 1)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).reshape(-1, self.window**2, c)
        mixed = self.out(mixed).view(n, h // self.window, w // self.window, self.window, self.window, c)
        mixed = mixed.permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(mixed, (self.shift, self.shift), (1, 2))


class Swin(nn.Module):
    """A plain and a shifted window block, patches merged between two stages."""

    def __init__(self, size: int = 16, width: int = 8) -> None:
        super().__init__()
        self.patches, self.norm0 = nn.Conv2d(3, width, 2, 2), nn.LayerNorm(width)
        self.blocks = nn.ModuleList(self._block(width, size // 2, shift) for shift in (0, 2))
        self.merge_norm, self.merge = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)
        self.last = self._block(2 * width, size // 4, 0)
        self.norm, self.head = nn.LayerNorm(2 * width), nn.Linear(2 * width, CLASSES)

    @staticmethod
    def _block(width: int, size: int, shift: int) -> nn.ModuleList:
        feed = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        attention = WindowAttention(width, 2, size, 4, shift)
        return nn.ModuleList([nn.LayerNorm(width), attention, nn.LayerNorm(width), feed])

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm0(self.patches(x).permute(0, 2, 3, 1))
        for norm1, attention, norm2, feed in self.blocks:
            x = x + attention(norm1(x))
            x = x + feed(norm2(x))
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        x = self.merge(self.merge_norm(torch.cat(corners, -1)))
        norm1, attention, norm2, feed = self.last
        x = x + attention(norm1(x))
        x = x + feed(norm2(x))
        return self.head(self.norm(x).mean((1, 2)))


class LlamaBlock(nn.Module):
    """RMSNorm, rotary positions, grouped key and value heads, SwiGLU."""

    def __init__(self, width: int = 16, heads: int = 4, groups: int = 2) -> None:
        super().__init__()
        self.heads, self.groups, self.size = heads, groups, width // heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key, self.value = (nn.Linear(width, groups * self.size, bias=False) for _ in range(2))
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)
        self.head = nn.Linear(width, CLASSES, bias=False)

    def _rotated(self, x: Tensor) -> Tensor:
        half = self.size // 2
        angles = torch.outer(
            torch.arange(x.shape[2], dtype=x.dtype), 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
        )
        cosine, sine = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
        return x * cosine + torch.cat([-x[..., half:], x[..., :half]], -1) * sine

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        query = self._rotated(self.query(y).unflatten(-1, (self.heads, -1)).transpose(1, 2))
        key = self._rotated(self.key(y).unflatten(-1, (self.groups, -1)).transpose(1, 2))
        value = self.value(y).unflatten(-1, (self.groups, -1)).transpose(1, 2)
        key, value = (t.repeat_interleave(self.heads // self.groups, 1) for t in (key, value))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        x = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return self.head(x[:, -1])


def _entry(build: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Network:
    return lambda: (draw(build()), tuple(normal(2, *shape, seed=i) for i, shape in enumerate(shapes, 1)))


NETWORKS: dict[str, Network] = {
    "encoder": _entry(Encoder, (6, 16)),
    "encoder_fused_attention": _entry(lambda: Encoder(fused=True), (6, 16)),
    "torch_encoder": _entry(TorchEncoder, (6, 16)),
    "torch_encoder_norm_first": _entry(lambda: TorchEncoder(norm_first=True), (6, 16)),
    "decoder": _entry(Decoder, (5, 16), (7, 16)),
    "torch_decoder": _entry(TorchDecoder, (5, 16), (7, 16)),
    "vit": _entry(VisionTransformer, (3, 16, 16)),
    "swin": _entry(Swin, (3, 16, 16)),
    "llama": _entry(LlamaBlock, (6, 16)),
}
