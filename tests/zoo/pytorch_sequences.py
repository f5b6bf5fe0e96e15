"""Networks over sequences in PyTorch: audio convolutions, recurrent layers, texts of integer tokens.

`NETWORKS[name]()` gives a network in evaluation mode and its example arguments, batch of 2. Sources: van den Oord et
al. 2016 (WaveNet); Kim 2014 (convolutions over a text).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.draw import Network, draw, normal, tokens

CLASSES, WORDS = 10, 20


class WaveNet(nn.Module):
    """Causal dilated convolutions with gates; every layer's skip is summed."""

    def __init__(self, width: int = 8, layers: int = 3) -> None:
        super().__init__()
        self.stem = nn.Conv1d(1, width, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(width, 2 * width, 2, dilation=2**i) for i in range(layers))
        self.residual = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.skip = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(layers))
        self.head = nn.Conv1d(width, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.stem(x), 0.0
        for dilated, residual, skip in zip(self.dilated, self.residual, self.skip, strict=True):
            filtered, gate = dilated(functional.pad(x, (dilated.dilation[0], 0))).chunk(2, 1)
            gated = filtered.tanh() * gate.sigmoid()
            total = total + skip(gated)
            x = x + residual(gated)
        return self.head(functional.relu(total)).mean(2)


class Audio(nn.Module):
    """Strided 1-D convolutions with batch norm, max, average and power pooling, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(2, 8, 5, stride=2, padding=2), nn.BatchNorm1d(8), nn.ReLU(), nn.MaxPool1d(3, 2, 1),
            nn.Conv1d(8, 8, 3, groups=2, padding="same", dilation=2), nn.GELU(), nn.AvgPool1d(2, ceil_mode=True),
            nn.ConvTranspose1d(8, 6, 4, stride=2, padding=1), nn.GLU(1), nn.ReplicationPad1d(1),
            nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.LazyLinear(CLASSES),
        )  # fmt: skip
        self.body(torch.zeros(1, 2, 32))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Recurrent(nn.Module):
    """A recurrent layer over a sequence, classified from its last output and its final state."""

    def __init__(self, kind: type[nn.RNNBase], width: int = 6, **options: Any) -> None:
        super().__init__()
        self.recurrent = kind(4, width, batch_first=True, **options)
        both = 1 + bool(options.get("bidirectional"))
        self.head = nn.Linear(2 * both * width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        steps, state = self.recurrent(x)
        last = (state[0] if isinstance(state, tuple) else state)[-1]
        mean = steps.mean(1)
        return self.head(torch.cat([mean, last.repeat(1, mean.shape[1] // last.shape[1])], 1))


class Seq2Seq(nn.Module):
    """An LSTM's final state starts a GRU cell that is stepped by hand, in the order time, batch."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.encoder, self.cell = nn.LSTM(4, width), nn.GRUCell(CLASSES, width)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        _, (state, _) = self.encoder(x.transpose(0, 1))
        state, logits = state[0], torch.zeros(x.shape[0], CLASSES)
        for _ in range(3):
            state = self.cell(logits.softmax(1), state)
            logits = self.head(state)
        return logits


class TextClassifier(nn.Module):
    """Embedded tokens, convolutions of two widths over the text, the greatest response of each."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, width)
        self.convs = nn.ModuleList(nn.Conv1d(width, 6, size) for size in (2, 3))
        self.head = nn.Linear(12, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words).mT
        return self.head(torch.cat([conv(x).relu().amax(2) for conv in self.convs], 1))


class MaskedText(nn.Module):
    """Embedded tokens and positions through an encoder that ignores padding (token 0), averaged over words."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, width, padding_idx=0)
        self.positions = nn.Embedding(16, width)
        self.layer = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True, activation="gelu")
        self.head = nn.Linear(width, CLASSES)

    def forward(self, words: Tensor) -> Tensor:
        hidden = words == 0
        x = self.embedding(words) + self.positions(torch.arange(words.shape[1]))
        x = self.layer(x, src_key_padding_mask=hidden).masked_fill(hidden.unsqueeze(-1), 0.0)
        return self.head(x.sum(1) / (~hidden).sum(1, keepdim=True))


def _entry(build: Callable[[], nn.Module], *shape: int) -> Network:
    return lambda: (draw(build()), (normal(2, *shape),))


NETWORKS: dict[str, Network] = {
    "wavenet": _entry(WaveNet, 1, 16),
    "audio": _entry(Audio, 2, 32),
    "lstm": _entry(lambda: Recurrent(nn.LSTM), 6, 4),
    "lstm_bidirectional": _entry(lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), 6, 4),
    "gru": _entry(lambda: Recurrent(nn.GRU, num_layers=2), 6, 4),
    "rnn": _entry(lambda: Recurrent(nn.RNN, nonlinearity="relu", bidirectional=True), 6, 4),
    "seq2seq": _entry(Seq2Seq, 5, 4),
}

TEXTS: dict[str, Network] = {
    "text_convolutions": lambda: (draw(TextClassifier()), (tokens(2, 7, count=WORDS),)),
    "text_masked": lambda: (draw(MaskedText()), (torch.tensor([[3, 7, 1, 9, 0, 0], [5, 2, 2, 11, 4, 0]]),)),
}
"""Networks whose inputs are all integers: their gradients are taken at the embedded tokens."""
