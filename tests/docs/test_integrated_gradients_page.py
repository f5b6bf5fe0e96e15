"""The page on Integrated Gradients: its code runs, block by block, and what it names and links to is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyzer.methods.paths.quadrature import RULES
from tests.docs.page import Page

PAGE = Page("integrated_gradients.md")


@pytest.fixture
def names():
    """What the page says its blocks are given."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, stride=2), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(24, 5),
    ).eval()  # fmt: skip
    return {"net": net, "images": np.random.default_rng(0).standard_normal((2, 3, 24, 24)).astype(np.float32)}


def test_every_block_runs_in_order(names):
    assert PAGE.run(names) == 3
    assert names["ig"].converged.all()
    assert names["top"].attributions.shape == (2, 3, 3, 24, 24)
    np.testing.assert_array_equal(names["second"].target, names["top"].target[:, 1])


def test_the_page_names_every_rule_and_links_to_what_is_there():
    assert [rule for rule in RULES if f"`{rule}`" not in PAGE.text] == []
    assert PAGE.missing() == []
