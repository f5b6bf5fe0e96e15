"""PyTorch's attention, exported as the one op `Attention`, is taken apart and differentiated as PyTorch does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from analyzer import check, differentiate, full_grad
from converters import load
from tests.converters.helpers import ops

FORMS: dict[str, dict[str, Any]] = {
    "causal": {"is_causal": True},
    "mask": {"attn_mask": torch.ones(5, 5).tril(1).bool()},
    "shared keys": {"enable_gqa": True, "scale": 0.7},
}


class Attention(torch.nn.Module):
    """Four heads of width 4; with `enable_gqa` two of them share keys and values."""

    def __init__(self, form: dict[str, Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form, width = form, 8 if "enable_gqa" in form else 16
        self.q, self.k, self.v = (torch.nn.Linear(8, size) for size in (16, width, width))
        self.out = torch.nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        q, k, v = (
            layer(x).reshape(batch, length, -1, 4).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        y = torch.nn.functional.scaled_dot_product_attention(q, k, v, **self.form)
        return self.out(y.transpose(1, 2).reshape(batch, length, 16)).mean(1)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.filterwarnings("ignore")
def test_an_exported_attention_op_has_the_gradient_of_the_network(name: str) -> None:
    net, x = Attention(FORMS[name]).eval(), torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    # A mask fixes the length; without one it stays open.
    free = {0: torch.export.Dim.DYNAMIC} | ({} if name == "mask" else {1: torch.export.Dim.DYNAMIC})
    exported = torch.onnx.export(
        net, (x,), dynamo=True, opset_version=23, dynamic_shapes=(free,), verbose=False
    )
    assert ops(exported.model_proto)["Attention"] == 1
    model = load(exported.model_proto)
    assert "Attention" not in ops(model.proto)
    check(
        model, x.numpy(), target=1, backends=("onnxruntime", "torch", "tensorflow")
    ).raise_for_disagreement()
    assert full_grad(model, x.numpy(), target=1, terms="all").completeness.error.max() < 1e-4
    fn = differentiate(model, backend="onnxruntime")
    for given in [x] if name == "mask" else [x, torch.randn(3, 7, 8)]:
        given.requires_grad_()
        net(given)[:, 1].sum().backward()
        (found,) = fn.gradients(given.detach().numpy(), target=1).gradients.values()
        np.testing.assert_allclose(found, given.grad.numpy(), rtol=1e-4, atol=1e-6)
