"""The page on baselines and paths: its code runs, block by block, and what it names and links to is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analyzer.methods.paths.baselines import NAMES
from tests.docs.page import Page

PAGE = Page("paths.md")


@pytest.fixture
def names():
    """What the page says its blocks are given."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, stride=2), torch.nn.GELU(), torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(24, 5),
    ).eval()  # fmt: skip
    rng = np.random.default_rng(0)
    images, others = (rng.standard_normal((n, 3, 24, 24)).astype(np.float32) for n in (2, 6))
    return {"net": net, "images": images, "others": others}


def test_every_block_runs_in_order(names):
    assert PAGE.run(names) == 6
    # What the page says of trapezoids, and of a band of no width.
    assert np.abs(names["guided"].delta).sum() < np.abs(names["theirs"].delta).sum()
    assert not np.allclose(names["guided"].attributions, names["straight"].attributions)


def test_the_page_names_every_baseline():
    assert [name for name in NAMES if f'"{name}"' not in PAGE.text] == []


def test_what_the_page_links_to_is_there():
    assert PAGE.missing() == []
