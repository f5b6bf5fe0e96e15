"""The page on methods: its code runs, and its table names what there is."""

from __future__ import annotations

import re

import numpy as np
import pytest

import analyzer
from tests.docs.page import Page
from tests.docs.test_full_grad_page import classifier

PAGE = Page("methods.md")


def test_every_block_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    names = {"net": classifier(), "images": images}
    assert PAGE.run(names) == 6
    assert [path.name for path in tmp_path.iterdir()] == ["cam.png"]
    assert names["cam"].map.shape == (2, 16, 16) and (np.abs(names["missed"]) > 1e-3).all()
    assert 0 < names["relative"] < 1
    through = names["through"]
    assert names["channels"].shape[0] == 2 and through.converged.all() and not through.beside
    full = analyzer.full_grad(names["fn"], images, 1)
    bias_terms = sum(one.total for one in full.contributions)
    assert names["missed"] == pytest.approx(bias_terms, rel=1e-3, abs=1e-5)


def test_the_table_names_methods_and_pages_that_there_are():
    named = re.findall(r"^\| `(\w+)`", PAGE.text, re.MULTILINE)
    assert len(named) >= 10 and all(callable(getattr(analyzer, name)) for name in named)
    assert PAGE.missing() == []
