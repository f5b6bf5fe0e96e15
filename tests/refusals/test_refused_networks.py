"""PyTorch networks that are refused: what the message says to do gives the right gradient."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from analyzer import differentiate
from converters import convert
from tests.refusals.setting import Case, assert_refused

X = torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1]])


class Squares(nn.Module):
    """(w x)², whose Jacobian is 2 (w x) w; or that Jacobian itself, where a function differentiates it."""

    def __init__(self, derivative=None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.derivative = nn.Linear(4, 3, bias=False), derivative

    def squares(self, x):
        return self.linear(x) ** 2

    def forward(self, x):
        return self.squares(x) if self.derivative is None else self.derivative(self.squares, x)


def by_jacrev(function, x):
    return torch.func.vmap(torch.func.jacrev(function))(x)


def by_autograd(function, x):
    x = x.requires_grad_()
    return torch.autograd.grad(function(x).sum(), x)[0]


def jacobian(k: int) -> np.ndarray:
    """The derivative of output k, by hand."""
    weight = Squares().linear.weight.detach()
    return (2 * (X @ weight.T)[:, k : k + 1] * weight[k]).numpy()


@cache
def explained() -> np.ndarray:
    """The gradient of output 1 of the squares, converted with an example."""
    (found,) = differentiate(convert(Squares(), X)).gradients(X.numpy(), 1).gradients.values()
    return found


CASES = {
    "jacrev": Case(
        lambda: convert(Squares(by_jacrev), X),
        "return the output before torch.autograd or torch.func differentiates it",
        lambda f: explained(),
        jacobian(1),
    ),
    "autograd.grad": Case(
        lambda: convert(Squares(by_autograd), X),
        "return the output before torch.autograd or torch.func differentiates it",
        lambda f: explained(),
        jacobian(1),
    ),
    "no example": Case(
        lambda: differentiate(Squares()),
        "convert(module, example)",
        lambda f: explained(),
        jacobian(1),
    ),
    "a free axis of one size": Case(
        lambda: convert(Squares(), X, free_axes={"x": {1: "n"}}),
        "remove this axis from free_axes",
        lambda f: explained(),
        jacobian(1),
    ),
    "an unknown argument": Case(
        lambda: convert(Squares(), X, free_axes={"y": {0: "n"}}), "one of these names"
    ),
    "an example of another type": Case(lambda: convert(Squares().half(), X), "example.to(weight.dtype)"),
    "an example of objects": Case(lambda: convert(Squares(), np.array([None])), "of numbers"),
    "a shape": Case(lambda: convert(Squares(), (2, 4)), "torch.randn"),
    "a class": Case(lambda: convert(Squares, X), "Squares(…)", lambda f: explained(), jacobian(1)),
    "a state dict": Case(lambda: convert(Squares().state_dict(), X), "load_state_dict"),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_network_is_refused_with_a_fix_that_works(case):
    assert_refused(case)
