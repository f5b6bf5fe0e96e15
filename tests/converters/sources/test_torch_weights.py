"""What a module computes from its weights alone is a constant of the converted graph, whatever op computes it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from analyzer import differentiate
from converters import convert

X = torch.randn(2, 4, generator=torch.Generator().manual_seed(1))


class Weighted(nn.Module):
    """A layer whose weight is a function of a parameter."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.weight = nn.Parameter(torch.randn(4, 4) + 3 * torch.eye(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Any) -> Any:
        return self.head(torch.tanh(x @ self.function(self.weight)))


def parametrized(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    layer = parametrizations.orthogonal(nn.Linear(4, 4), **options)
    return nn.Sequential(layer, nn.Tanh(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    "net",
    [
        parametrized(orthogonal_map="matrix_exp"),
        parametrized(orthogonal_map="cayley"),
        parametrized(orthogonal_map="householder"),
        nn.Sequential(parametrizations.spectral_norm(nn.Linear(4, 4)), nn.Tanh(), nn.Linear(4, 3)),
        Weighted(lambda w: w * torch.linalg.slogdet(w)[1]),
        Weighted(lambda w: torch.linalg.cholesky(w @ w.T + torch.eye(4, dtype=w.dtype))),
        Weighted(lambda w: torch.linalg.svd(w)[0] * torch.linalg.qr(w)[1]),
    ],
    ids=["matrix_exp", "cayley", "householder", "spectral_norm", "slogdet", "cholesky", "svd and qr"],
)
def test_gradients_through_a_computed_weight_agree_with_autograd(net: nn.Module) -> None:
    net = net.eval()
    model = convert(net, X)
    x = X.double().requires_grad_()
    (truth,) = torch.autograd.grad(copy.deepcopy(net).double()(x)[:, 1].sum(), x)
    for backend in ("onnxruntime", "source"):
        fn = differentiate(model, backend)
        found = fn.gradients(X.numpy(), 1).gradients[fn.graph.inputs[0]]
        np.testing.assert_allclose(found, truth.numpy(), rtol=1e-4, atol=1e-6)
