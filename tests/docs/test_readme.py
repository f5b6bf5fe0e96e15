"""The README: its Python runs, its commands exist, and its links lead to files."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from analyzer.cli.commands import NAMES
from tests.docs.page import Page

PAGE = Page("../README.md")


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for channels in (3, 4, 4, 4):
        layers += [torch.nn.Conv2d(channels, 4, 3, padding=1), torch.nn.ReLU()]
    head = [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(4, 300)]
    net = torch.nn.Sequential(*layers, *head).eval()
    images = np.random.default_rng(0).uniform(size=(2, 3, 12, 12)).astype(np.float32)
    names = {"net": net, "example": images[:1], "images": images}
    assert PAGE.run(names) == 1
    fg = names["fg"]
    total = fg.input_term.sum(axis=(1, 2, 3)) + sum(
        term.reshape(2, -1).sum(axis=1) for term in fg.bias_terms.values()
    )
    np.testing.assert_allclose(total, fg.output, rtol=1e-4)
    assert (tmp_path / "cat.png").stat().st_size > 1_000


def test_the_commands_of_the_readme_exist():
    named = set(re.findall(r"^onnxplain (\w+) +\S+\.(?:onnx|\w+:)", PAGE.text, re.MULTILINE))
    assert len(named) >= 4 and named <= set(NAMES)


@pytest.mark.parametrize("name", ["../README.md", "README.md", "../CONTRIBUTING.md"])
def test_every_link_leads_to_a_file(name):
    page = Page(name)
    folder = page.path.parent
    links = [link for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.text) if "://" not in link]
    assert links and [link for link in links if not (folder / link).is_file()] == []
