"""The page on FullGrad: its code runs, block by block, and its pictures and links are there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.docs.page import Page

PAGE = Page("full_grad.md")


def classifier() -> torch.nn.Module:
    """A network with every kind of term: biases, BatchNorm, ReLU, GELU and a gate."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 6, 3, padding=1),
        torch.nn.BatchNorm2d(6),
        torch.nn.ReLU(),
        torch.nn.Conv2d(6, 8, 3, stride=2, padding=1),
        torch.nn.GELU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 5),
    ).eval()


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the page says its blocks are given. Pictures they save go to a temporary folder."""
    monkeypatch.chdir(tmp_path)
    return {
        "net": classifier(),
        "images": np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32),
    }


def test_every_block_runs_in_order(names, tmp_path):
    assert PAGE.run(names) >= 9
    assert {path.name for path in tmp_path.iterdir()} == {"layers.png", "map.png", "complete.png"}
    assert (np.abs(names["missed"]) > 1e-3).all(), "a GELU leaves the explicit terms short"


def test_what_the_page_links_to_is_there():
    assert PAGE.missing() == []
