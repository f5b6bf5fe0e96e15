"""The report of a check: a short text, HTML that is escaped, and a file that needs no pickle."""

from __future__ import annotations

import json
import pickle
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

from analyzer import AnalysisError, Attribution, Report, check, compare, gradient
from analyzer.errors import Disagreement
from converters import convert


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3)]
    return torch.nn.Sequential(*layers).eval()


X = np.random.default_rng(0).normal(size=(2, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def passing() -> Report:
    return check(convert(network(), X[:1]), X, backends=["onnxruntime", "torch"])


@pytest.fixture(scope="module")
def failing() -> Report:
    return compare(convert(network(), X[:1]), convert(network(1), X[:1]), X, names=("<old>", "new"))


def test_the_text_has_five_lines_at_most(passing, failing):
    for report, word in ((passing, "all agree"), (failing, "disagree")):
        lines = repr(report).splitlines()
        assert lines[0].startswith("Report: ")
        assert 2 <= len(lines) <= 5 and max(map(len, lines)) <= 110
        assert any(word in line for line in lines)
    assert "onnxruntime against torch: agree" in repr(passing)


def test_the_html_is_short_and_escaped(failing):
    page = failing._repr_html_()
    assert len(page) < 5_000
    assert "&lt;old&gt;" in page and "<old>" not in page


@pytest.mark.parametrize("kind", ["passing", "failing"])
def test_a_saved_report_is_the_same_after_reading(kind, request, tmp_path):
    report = request.getfixturevalue(kind)
    report.save(tmp_path / "report.npz")
    for again in (Report.load(tmp_path / "report.npz"), pickle.loads(pickle.dumps(report))):
        assert again.to_json() == report.to_json()
        assert repr(again) == repr(report)
        assert again.passed == report.passed
        again.to_html(tmp_path / "again.html")
        report.to_html(tmp_path / "report.html")
        assert (tmp_path / "again.html").read_text() == (tmp_path / "report.html").read_text()


def test_a_result_is_no_report_and_a_report_no_result(passing, tmp_path):
    gradient(convert(network(), X[:1]), X).save(tmp_path / "result.npz")
    passing.save(tmp_path / "report.npz")
    with pytest.raises(AnalysisError, match="the fields are not those of Report"):
        Report.load(tmp_path / "result.npz")
    with pytest.raises(AnalysisError, match="the fields are not those of Attribution"):
        Attribution.load(tmp_path / "report.npz")


def test_a_report_that_compares_nothing_does_not_pass(tmp_path):
    empty = Report([], [], ("onnxruntime",), skipped={"torch": "not installed"})
    assert not empty.passed
    assert empty.headline.startswith("nothing was compared; expected two sides to compare, found onnxruntime")
    assert "torch: not installed" in empty.reason and "Fix: " in empty.reason
    with pytest.raises(Disagreement, match="nothing was compared"):
        empty.raise_for_disagreement()
    empty.to_junit(tmp_path / "junit.xml")
    assert ElementTree.parse(tmp_path / "junit.xml").getroot().get("failures") == "1"
    empty.to_html(tmp_path / "page.html")
    assert "nothing was compared" in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert json.loads(empty.to_json())["passed"] is False
