"""Random PyTorch modules are healthy and the same for the same seed."""

from __future__ import annotations

import torch

from tests.zoo.random_modules import CLASSES, SAMPLES, random_module


def test_outputs_and_gradients_are_of_order_one() -> None:
    for seed in range(20):
        net, (example,) = random_module(seed)
        assert sum(parameter.numel() for parameter in net.parameters()) < 50_000
        x = example.clone().requires_grad_()
        logits = net(x)
        logits[:, 1].sum().backward()
        assert logits.shape == (SAMPLES, CLASSES)
        assert 0.02 < float(logits.detach().abs().max()) < 30, seed
        assert 1e-4 < float(x.grad.norm()) < 300, seed


def test_a_seed_gives_one_module() -> None:
    (net, (x,)), (again, _) = random_module(5), random_module(5)
    assert torch.equal(net(x), again(x))
    names = {tuple(random_module(seed)[0].state_dict()) for seed in range(8)}
    assert len(names) > 4
