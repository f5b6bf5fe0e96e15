"""The coverage page agrees with the registry, and every op of the standard stands somewhere on it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analyzer.ops import registered
from tools.coverage.page import row, static_cells
from tools.coverage.refused import REFUSED, lowered_ops, standard_ops

PAGE = (Path(__file__).parents[2] / "docs" / "coverage.md").read_text(encoding="utf-8")
RULES = {name: rules for (domain, name), rules in registered().items() if not domain}
AGAIN = "write the page anew: python -m tools.coverage --write docs/coverage.md"


def section(title: str) -> str:
    """The text of one section of the page."""
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_registered_op_stands_on_the_page_as_the_registry_has_it(name):
    assert f"\n{row(static_cells(name, RULES[name]))[:-2]} | " in section("Ops"), AGAIN


def test_no_other_op_stands_there():
    assert set(re.findall(r"^\| `(\w+)` ", section("Ops"), re.MULTILINE)) == RULES.keys(), AGAIN


def test_every_op_of_the_standard_has_a_class_a_lowering_or_a_reason():
    lowered = set(lowered_ops())
    assert set(standard_ops()) == (RULES.keys() & set(standard_ops())) | lowered | REFUSED.keys()
    assert not REFUSED.keys() & (RULES.keys() | lowered)


def test_the_page_tells_of_no_failure():
    assert "fails:" not in PAGE
    assert " 0 failed." in PAGE
