"""docs/agreement.md is what `python -m benchmarks.agreement` writes: every network is there, a row is found anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analyzer.checks.explain.rounding import ROUNDING
from analyzer.checks.tolerances import COMPARED, DEFAULT
from benchmarks.agreement import FAMILIES, examine, reasons

PAGE = Path(__file__).parents[2] / "docs" / "agreement.md"


def rows_of(family: str) -> dict[str, dict[str, str]]:
    """The page's table of one framework: {network: {column: cell}}."""
    section = PAGE.read_text().partition(f"## {family}\n")[2].partition("\n## ")[0]
    head, _, *lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:1] == "|"]
    return {line[0]: dict(zip(head, line, strict=True)) for line in lines}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_network_is_on_the_page_and_agrees(family):
    rows = rows_of(family)
    assert list(rows) == list(FAMILIES[family])
    assert len(rows) >= 10
    for row in rows.values():
        assert row["verdict"] == "agree"
        worst = max(float(row[quantity]) for quantity in COMPARED if row[quantity] != "–")
        assert worst <= DEFAULT or int(row["explained"])
        assert float(row["completeness"]) <= 1e-4 and float(row["in float64"]) <= 1e-10


@pytest.mark.parametrize(("family", "network"), [("PyTorch", "MLP-Mixer"), ("Keras", "CNN")])
def test_a_row_is_found_anew(family, network):
    row, found = rows_of(family)[network], examine(family, network)
    assert found.passed and found.backends == ("onnxruntime", "torch", "tensorflow", "source")
    assert row["nodes"] == str(found.nodes)
    assert row["parameters"] == f"{found.parameters:,}"
    assert row["comparisons"] == f"{found.comparisons:,}"
    assert row["explained"] == str(found.explained)
    for quantity, value in found.worst.items():
        # Rounding is the machine's own; its size is not.
        assert value <= 10 * float(row[quantity]) + 1e-6, quantity


def test_every_reason_that_excuses_an_excess_is_named():
    told = PAGE.read_text().partition("## Reasons\n")[2]
    for family in FAMILIES:
        for network, row in rows_of(family).items():
            found = re.search(rf"^- {family} {re.escape(network)}: (.+)$", told, re.MULTILINE)
            counts = re.findall(r"(\d+) by (?:kinks|rounding), first \w", found[1]) if found else []
            assert sum(map(int, counts)) == int(row["explained"]), (family, network)


def test_reasons_are_counted_by_kind():
    kink = "1 decision of Relu 'r' within rounding of a kink; held equal, the gradients agree to 0e+00"
    assert reasons([]) == ""
    assert reasons([ROUNDING, ROUNDING]) == "2 by rounding, first zero but for rounding"
    assert reasons([kink, ROUNDING, kink]) == f"2 by kinks, first {kink}; 1 by rounding, first {ROUNDING}"
