"""Integrated Gradients at embedded tokens: a score for each, whatever reads the vectors, and its picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from analyzer import AnalysisError, differentiate, integrated_gradients
from converters import convert

TOKENS = np.array([[1, 4, 2, 0, 0], [3, 3, 1, 4, 2]])
NAMES = [["a", "b", "c"], ["d", "d", "a", "b", "c"]]


class Reader(nn.Module):
    """Embedded tokens, an LSTM or nothing between, and the sum over them by weights."""

    def __init__(self, recurrent: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.lstm = nn.LSTM(4, 4, batch_first=True) if recurrent else None
        self.head = nn.Linear(4, 2)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.read(self.table(tokens))

    def read(self, vectors: torch.Tensor) -> torch.Tensor:
        return self.head((vectors if self.lstm is None else self.lstm(vectors)[0]).sum(1))


@pytest.fixture(scope="module", params=[False, True], ids=["linear", "lstm"])
def reader(request):
    torch.manual_seed(0)
    return Reader(request.param).eval()


@pytest.fixture(scope="module")
def explained(reader):
    fn = differentiate(convert(reader, TOKENS))
    return integrated_gradients(
        fn, TOKENS, 1, wrt="embedding", baseline_inputs=0 * TOKENS[:1], tolerance=1e-3
    )


def test_the_scores_sum_to_what_two_runs_of_the_network_differ_by(reader, explained):
    difference = reader(torch.from_numpy(TOKENS)) - reader(torch.zeros(2, 5, dtype=torch.int64))
    assert explained.embedded and explained.token_scores().shape == (2, 5)
    np.testing.assert_allclose(
        explained.token_scores().sum(axis=1), difference[:, 1].detach(), rtol=2e-3, atol=1e-6
    )


def test_the_scores_are_those_of_autograd_in_double_precision(reader, explained):
    exact = Reader(reader.lstm is not None).double()
    exact.load_state_dict(reader.state_dict())
    end = exact.table(torch.from_numpy(TOKENS)).detach()
    span, total = end - exact.table.weight[0].detach(), 0.0
    for alpha in (np.arange(200) + 0.5) / 200:
        point = (end - (1 - alpha) * span).requires_grad_()
        total = total + torch.autograd.grad(exact.read(point)[:, 1].sum(), point)[0] / 200
    np.testing.assert_allclose(explained.token_scores(), (span * total).sum(-1), rtol=5e-3, atol=1e-5)


def test_the_map_has_one_number_for_each_token(explained):
    np.testing.assert_allclose(explained.map, explained.token_scores(), rtol=1e-6)


def test_named_tokens_are_coloured_and_unnamed_ones_have_bars(explained):
    (axes,) = explained.plot(features=NAMES).axes
    told = [text.get_text() for text in axes.texts]
    assert [told.count(name) for name in "abcd"] == [2, 2, 2, 2]
    assert not any(
        "more" in text for text in told
    )  # padding is its own baseline: its scores are exactly zero
    bars = explained.plot().axes
    found = [[bar.get_width() for bar in axes.patches] for axes in bars]
    np.testing.assert_allclose(found, explained.token_scores())


def test_attributions_that_are_no_tokens_have_no_token_scores(reader, explained):
    with pytest.raises(AnalysisError, match="no tokens are embedded in nothing"):
        explained.token_scores("nothing")
    net = nn.Linear(3, 2).eval()
    rows = np.ones((1, 3), np.float32)
    found = integrated_gradients(convert(net, rows), rows, 0, steps=2)
    with pytest.raises(AnalysisError, match="wrt='embedding'"):
        found.token_scores()
    assert len(found.plot(features=["x", "y", "z"]).axes[0].patches) == 3
