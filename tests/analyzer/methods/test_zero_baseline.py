"""Integrated gradients from a zero baseline through normalizations, whose output changes at tiny distances from it."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from analyzer import integrated_gradients
from converters import convert


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.norm, self.a, self.b = (
            nn.RMSNorm(d, eps=1e-6),
            nn.Linear(d, d, bias=False),
            nn.Linear(d, d, bias=False),
        )

    def forward(self, x):
        return x + self.b(torch.tanh(self.a(self.norm(x))))


def network(blocks):
    torch.manual_seed(0)
    return nn.Sequential(*(Block(6) for _ in range(blocks)), nn.RMSNorm(6, eps=1e-6), nn.Linear(6, 3)).eval()


def truth(net, x):
    """Along α = e^s, s from −60 to 0, by midpoints in float64."""
    m, x = copy.deepcopy(net).double(), x.double()
    s = torch.linspace(-60, 0, 6001, dtype=torch.float64)
    alphas = torch.exp((s[:-1] + s[1:]) / 2)
    v = (alphas[:, None] * x).requires_grad_(True)
    (g,) = torch.autograd.grad(m(v)[:, 1].sum(), v)
    return ((g * (torch.exp(s[1:]) - torch.exp(s[:-1]))[:, None]).sum(0) * x[0]).numpy()


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_the_map_through_normalizations_converges_to_the_truth(blocks):
    net, x = network(blocks), torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    true = truth(net, x)
    found = integrated_gradients(convert(net, x), x.numpy(), 1, tolerance=0.01)
    assert found.converged.all()
    error = np.linalg.norm(found.attributions[0] - true) / np.linalg.norm(true)
    assert error <= max(0.05, 3 * float(found.map_error[0]))


def test_what_did_not_converge_says_so_and_states_no_smaller_error_than_its_sum():
    net, x = network(3), torch.randn(1, 6, generator=torch.Generator().manual_seed(1))
    with pytest.warns(UserWarning, match=r"did not reach the tolerance.*baseline_inputs="):
        found = integrated_gradients(convert(net, x), x.numpy(), 1, tolerance=0.01, max_evaluations=40)
    assert not found.converged.any()
    assert (found.map_error >= np.abs(found.delta / found.completeness.output) * 0.999).all()


def test_a_fixed_rule_claims_no_convergence():
    net, x = network(1), torch.randn(2, 6)
    assert not integrated_gradients(convert(net, x), x.numpy(), 1, steps=50).converged.any()
