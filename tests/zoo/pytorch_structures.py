"""PyTorch networks of unusual structure: several inputs and outputs, shared layers, functions, computed weights.

`NETWORKS[name]()` gives a network in evaluation mode and its example arguments, batch of 2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tests.zoo.draw import Network, draw, normal, tokens

CLASSES = 10


class Tabular(nn.Module):
    """Numbers and categories of one row: a float and an integer input."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.norm = nn.BatchNorm1d(6)
        self.body = nn.Sequential(nn.Linear(14, 16), nn.SiLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES))

    def forward(self, numbers: Tensor, categories: Tensor) -> Tensor:
        return self.body(torch.cat([self.norm(numbers), self.embedding(categories).flatten(1)], 1))


class TwoTowers(nn.Module):
    """An image and a text vector, embedded, normalised, and compared with ten prototypes."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.vector = nn.Linear(5, 6)
        self.prototypes = nn.Parameter(torch.zeros(CLASSES, 6))
        self.temperature = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor, vector: Tensor) -> Tensor:
        a, b = functional.normalize(self.image(image)), functional.normalize(self.vector(vector))
        both = functional.cosine_similarity(a, b).unsqueeze(1)
        return (a * b) @ functional.normalize(self.prototypes).T * self.temperature.exp() + both


class Outputs(NamedTuple):
    """What a network with two heads and features returns."""

    logits: Tensor
    box: Tensor
    features: Tensor


class Detector(nn.Module):
    """Three outputs of several ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.logits, self.box = nn.Linear(8, CLASSES), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Outputs:
        features = self.body(x)
        pooled = features.mean((2, 3))
        return Outputs(self.logits(pooled), self.box(pooled).sigmoid(), features)


class Shared(nn.Module):
    """One layer used three times, and weights tied between an encoder and its decoder."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.first, self.again = nn.Linear(12, width), nn.Linear(width, width)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for _ in range(3):
            x = self.norm(x + self.again(x).relu())
        decoded = functional.linear(x, self.first.weight.T)
        return self.head(decoded)


class Functional(nn.Module):
    """Functions without a module: einsum, cumulative sums, sorting, gathering, norms, selection."""

    def __init__(self) -> None:
        super().__init__()
        self.core = nn.Parameter(torch.zeros(4, 5, 3))
        self.head = nn.Linear(16, CLASSES)
        self.register_buffer("order", torch.tensor([3, 0, 2, 2]))

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.einsum("nia,ijb,nja->nb", x[:, :4], self.core, x[:, :5])
        running = torch.cumsum(x, 1)[:, -1]
        best = torch.topk(x.sum(2), 3, dim=1).values
        taken = torch.gather(x, 1, x.argmax(1, keepdim=True)).squeeze(1)
        picked = x.index_select(1, self.order).std(1)
        soft = torch.logsumexp(x, 1) - torch.log1p(x.abs().amin(1))
        whole = torch.where(x > 0.3, x.square(), x.clamp(-1, 1)).flatten(1).norm(dim=1, keepdim=True)
        return self.head(torch.cat([mixed, running, best, taken * picked[:, :3], soft, whole], 1))


class Sliced(nn.Module):
    """Steps, negative indices, index lists, rolls, flips, unfolded windows, masks by triangle."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(30, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        a = x[:, ::2, -3:] - x[:, 1::2, [0, 2, 4]]
        b = x.flip(2)[..., 1, :2] + x.roll((1, -2), (1, 2))[:, 0, :2].unsqueeze(1)[:, 0]
        c = torch.stack([x[:, 0], x[:, -1]], 2).flatten(1)
        d = x.unfold(2, 3, 2).prod(3).sum(2)
        e = (x @ x.mT).tril(-1)[:, 3, :3].tanh()
        f, g = x.movedim(1, 2).split([2, 3], 1)
        h = torch.zeros_like(x[:, 0, :3])
        h = h + f.amax(1)[:, :3] * g.mean(1)[:, 1:]
        return self.head(torch.cat([a.flatten(1), b, c, d, e, h, x[:, 2, :2]], 1))


class Reparametrised(nn.Module):
    """Weights that are computed from others: weight norm and spectral norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = parametrizations.weight_norm(nn.Conv2d(3, 6, 3))
        self.dense = parametrizations.spectral_norm(nn.Linear(6, 8))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.conv(x)).mean((2, 3))
        return self.head(torch.tanh(self.dense(x)))


def _reparametrised() -> nn.Module:
    net = draw(Reparametrised()).train()
    for seed in range(20):  # the power iteration of the spectral norm
        net(normal(2, 3, 8, 8, seed=seed))
    return net.eval()


def _entry(build: Callable[[], nn.Module], *shapes: tuple[int, ...]) -> Network:
    return lambda: (draw(build()), tuple(normal(2, *shape, seed=i) for i, shape in enumerate(shapes, 1)))


NETWORKS: dict[str, Network] = {
    "tabular": lambda: (draw(Tabular()), (normal(2, 6), tokens(2, 2, count=5))),
    "two_towers": _entry(TwoTowers, (3, 9, 9), (5,)),
    "detector": _entry(Detector, (3, 8, 8)),
    "shared": _entry(Shared, (12,)),
    "functional": _entry(Functional, (6, 3)),
    "sliced": _entry(Sliced, (4, 5)),
    "reparametrised": lambda: (_reparametrised(), (normal(2, 3, 8, 8),)),
}
