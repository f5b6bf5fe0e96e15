"""The page on targets and points: its code runs, block by block, and its links are there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from tests.analyzer.targets.detectors import Detector
from tests.docs.page import Page
from tests.docs.test_full_grad_page import classifier
from tests.zoo.draw import draw, tokens

PAGE = Page("targets.md")


class Heads(nn.Module):
    """Classes, and the two numbers of a box."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.logits, self.box = nn.Linear(4, 5), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        return self.logits(h), self.box(h)


def test_every_block_runs_in_order():
    names = {
        "np": np,
        "net": classifier(),
        "heads": draw(Heads()),
        "segmenter": draw(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))),
        "reader": draw(nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 5))),
        "images": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)).numpy(),
        "detector": Detector("yolov8").eval(),
        "photographs": torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).numpy(),
        "words": tokens(2, 6, count=9).numpy(),
    }
    assert PAGE.run(names) >= 5
    assert PAGE.missing() == []
