"""The page on results: its code runs, and its table names what there is."""

from __future__ import annotations

import re

import matplotlib
import numpy as np

import analyzer
from analyzer.methods import METHODS
from converters import convert
from tests.docs.page import Page
from tests.docs.test_full_grad_page import classifier

PAGE = Page("results.md")


def test_every_block_runs_in_order(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)
    model = convert(classifier(), images[:1])
    try:
        assert PAGE.run({"model": model, "images": images}) == 7
    finally:
        METHODS.pop("plain-gradient", None)
    assert {path.name for path in tmp_path.iterdir()} == {"cat.png", "fg.npz", "check.npz"}


def test_the_table_names_attributes_that_there_are():
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", PAGE.text, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert len(named) >= 11
    known = {*analyzer.Attribution.__dataclass_fields__, "map"}
    assert set(named) <= known
    assert PAGE.missing() == []
