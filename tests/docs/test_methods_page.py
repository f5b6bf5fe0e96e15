"""The page on methods: its code runs, and its table names what there is."""

from __future__ import annotations

import re

import numpy as np
import pytest

import analyzer
from tests.docs.test_full_grad_page import BLOCK, LINK, PAGE, classifier

METHODS_PAGE = PAGE.with_name("methods.md")


def test_every_block_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    names = {"net": classifier(), "images": images}
    text = METHODS_PAGE.read_text()
    blocks = list(BLOCK.finditer(text))
    assert len(blocks) == 6
    for block in blocks:
        # The line of the page is the line of a traceback.
        lines_before = "\n" * text[: block.start(1)].count("\n")
        exec(compile(lines_before + block[1], str(METHODS_PAGE), "exec"), names)
    assert [path.name for path in tmp_path.iterdir()] == ["cam.png"]
    assert names["cam"].map.shape == (2, 16, 16) and (np.abs(names["missed"]) > 1e-3).all()
    assert 0 < names["relative"] < 1
    through = names["through"]
    assert names["channels"].shape[0] == 2 and through.converged.all() and not through.beside
    full = analyzer.full_grad(names["fn"], images, 1)
    bias_terms = sum(one.total for one in full.contributions)
    assert names["missed"] == pytest.approx(bias_terms, rel=1e-3, abs=1e-5)


def test_the_table_names_methods_and_pages_that_there_are():
    text = METHODS_PAGE.read_text()
    named = re.findall(r"^\| `(\w+)`", text, re.MULTILINE)
    assert len(named) >= 10 and all(callable(getattr(analyzer, name)) for name in named)
    for link in LINK.findall(text):
        assert (METHODS_PAGE.parent / link).is_file(), link
