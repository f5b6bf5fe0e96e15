"""Optimizers leave a trained network's reasons as they are, quantizers move them; the page tells of every tool."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

optimized = importlib.import_module("04_optimized")
rewriters = importlib.import_module("rewriters")

PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"
TOOLS = ("ONNX Runtime, extended", "ONNX Runtime, all", "float16", "static quantization")


@pytest.fixture(scope="module")
def outcomes():
    network = optimized.gratings()
    return {outcome.tool: outcome for outcome in optimized.examine(network, TOOLS, lambda what: None)}


def test_an_optimizer_keeps_the_function(outcomes):
    outcomes["ONNX Runtime, extended"].report.raise_for_disagreement()


def test_the_layout_of_one_machine_is_refused_by_name(outcomes):
    refused = outcomes["ONNX Runtime, all"]
    assert refused.report is None and "com.microsoft.nchwc.Conv" in refused.refusal
    (line,) = optimized.found([refused])
    assert line.startswith("- ONNX Runtime, all: refused: node")


@pytest.mark.parametrize(
    ("tool", "least", "most"), [("float16", 1e-5, 2e-3), ("static quantization", 2e-3, 5e-2)]
)
def test_a_rounded_copy_moves_by_the_size_of_its_rounding(outcomes, tool, least, most):
    """Ten bits of a float16, 2⁻¹¹, or eight of a code, 2⁻⁹ of the range, piled up over a few layers."""
    report = outcomes[tool].report
    assert not report.passed
    assert all(least < row["output"] < most for row in report.drift)
    # What moves the logits moves their gradients further.
    assert all(row["integrated gradients relative_l2"] > row["output"] for row in report.drift)
    assert not report.unmatched["original"]


def test_the_page_tells_of_every_tool():
    text = PAGE.read_text()
    sections = text.split("\n## ")[1:]
    assert len(sections) == len(optimized.NETWORKS)
    for section in sections:
        # Each is a row of both tables.
        assert all(section.count(f"\n| {tool} |") == 2 for tool in rewriters.REWRITERS)
        assert (
            "- The same function, and the same reasons: ONNX Runtime, basic, ONNX Runtime, extended"
            in section
        )


def test_a_section_is_written_in_its_place(tmp_path):
    page = tmp_path / "page.md"
    optimized.write_sections(page, ["## A\n\nold\n", "## B\n\nkept\n"])
    optimized.write_sections(page, ["## A\n\nnew\n"])
    assert page.read_text() == f"{optimized.HEAD.strip()}\n\n## A\n\nnew\n\n## B\n\nkept\n"
