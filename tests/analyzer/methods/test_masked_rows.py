"""FullGrad where an attention's mask hides whole rows: finite, complete, and the same as without the hidden rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from analyzer import check, differentiate, full_grad
from converters import convert

LOWEST = float(torch.finfo(torch.float32).min)
TOKENS = 6


class Attention(nn.Module):
    """One head over tokens, of which padding neither sees nor is seen; every row is read."""

    def __init__(self, low, how):
        super().__init__()
        torch.manual_seed(0)
        self.low, self.how = low, how
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)
        self.register_buffer("position", 0.3 * torch.randn(TOKENS, TOKENS))

    def forward(self, x, mask):
        q, k, v = self.qkv(x).chunk(3, -1)
        see = (mask[:, None, :] * mask[:, :, None]).bool()
        scores = q @ k.transpose(1, 2) + self.position
        if self.how == "fill":
            scores = scores.masked_fill(~see, self.low)
        elif self.how == "add":
            scores = scores + (~see).to(scores.dtype) * self.low
        else:
            scores = torch.where(see, scores, self.low) / 2
        weights = scores.log_softmax(-1).exp() if self.how == "log" else scores.softmax(-1)
        return self.head((weights @ v).mean(1))


def inputs():
    torch.manual_seed(1)
    mask = torch.tensor([[1] * TOKENS, [1] * (TOKENS - 2) + [0] * 2])
    return torch.randn(2, TOKENS, 4), mask


@pytest.mark.parametrize(
    ("how", "low"),
    [("fill", -1e4), ("add", -1e9), *((how, LOWEST) for how in ("fill", "add", "scaled", "log"))],
)
def test_full_grad_is_complete_where_rows_are_masked_whole(how, low):
    x, mask = inputs()
    model = convert(Attention(low, how).eval(), (x, mask))
    feeds = {"x": x.numpy(), "mask": mask.numpy()}
    for backend, precision, tolerance in (
        ("onnxruntime", "float32", 2e-6),
        ("torch", "float64", 1e-12),
    ):
        found = full_grad(differentiate(model, backend=backend, precision=precision), feeds, 1)
        assert (found.completeness.error <= tolerance).all()
        # No term is larger than what the network computes, as a score times the lowest number would be.
        assert all(np.abs(term).max() < 10 for term in found.bias_terms.values())
        assert np.isfinite(found.map["x"] if isinstance(found.map, dict) else found.map).all()


def test_hidden_rows_that_nothing_reads_change_no_term():
    x, mask = inputs()

    class First(Attention):
        def forward(self, x, mask):
            q, k, v = self.qkv(x).chunk(3, -1)
            see = (mask[:, None, :] * mask[:, :, None]).bool()
            scores = (q @ k.transpose(1, 2)).masked_fill(~see, self.low)
            return self.head((scores.softmax(-1) @ v)[:, 0])

    net = First(LOWEST, "fill").eval()
    whole = full_grad(convert(net, (x, mask)), {"x": x.numpy(), "mask": mask.numpy()}, 1)
    cut, ones = x[1:, : TOKENS - 2], mask[1:, : TOKENS - 2]
    alone = full_grad(convert(net, (cut, ones)), {"x": cut.numpy(), "mask": ones.numpy()}, 1)
    assert whole.input_term["x"][1, : TOKENS - 2] == pytest.approx(
        alone.input_term["x"][0], rel=1e-4, abs=1e-6
    )
    assert whole.completeness.output[1] == pytest.approx(alone.completeness.output[0], rel=1e-5)


def test_check_passes_where_rows_are_masked_whole():
    x, mask = inputs()
    model = convert(Attention(LOWEST, "fill").eval(), (x, mask))
    feeds = {"x": x.numpy(), "mask": mask.numpy()}
    assert check(model, feeds, target=1, backends=["onnxruntime", "torch"]).passed


class Additive(nn.Module):
    """Scores plus a mask that comes as an input, as servers of language models feed it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.head = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x, mask):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.head(((q @ k.transpose(1, 2) + mask).softmax(-1) @ v).mean(1))


@pytest.mark.parametrize("wrt", [["x"], None])
@pytest.mark.parametrize("low", [LOWEST, -1e9])
def test_a_mask_may_be_a_float_input(low, wrt):
    x, _ = inputs()
    mask = np.triu(np.full((TOKENS, TOKENS), low, np.float32), 1)[None].repeat(2, 0)
    model = convert(Additive().eval(), (x, torch.zeros(2, TOKENS, TOKENS)))
    for backend in ("onnxruntime", "torch"):
        found = full_grad(differentiate(model, backend=backend), {"x": x.numpy(), "mask": mask}, 1, wrt=wrt)
        assert (found.completeness.error <= 2e-6).all()


class LogProbabilities(nn.Module):
    """Logits of actions, of which a mask rules some out by log 0 = −∞."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 5)

    def forward(self, x, allowed):
        return self.net(x).tanh() + torch.log(allowed)


def test_an_output_with_infinities_is_explained_where_it_is_finite():
    x = torch.randn(2, 4)
    allowed = torch.tensor([[1.0, 0, 1, 1, 0], [0.0, 1, 1, 0.5, 1]])
    model = convert(LogProbabilities().eval(), (x, allowed))
    for backend in ("onnxruntime", "torch"):
        fn = differentiate(model, backend=backend)
        found = full_grad(fn, {"x": x.numpy(), "allowed": allowed.numpy()}, 2, wrt=["x"])
        assert (found.completeness.error <= 2e-6).all()
