"""Names and messages of a stranger's file are shown without acting."""

from __future__ import annotations

import pytest

from analyzer.errors import AnalysisError
from converters.errors import InvalidModel
from converters.system.text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("conv1/weight é 重み ∂", "conv1/weight é 重み ∂"),
        ("aten::add", "aten::add"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b[2J", "\\x1b[31mred\\x1b[2J"),
        ("\x9b31m", "\\x9b31m"),
        ("a\rb\x00\x07\x7f", "a\\x0db\\x00\\x07\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("::error file=a::text", ":\\:error file=a::text"),
        ("x ::Add-Mask::y", "x :\\:Add-Mask::y"),
        ("##[group]name", "#\\#[group]name"),
    ],
)
def test_what_could_act_is_written_out(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown
    assert str(AnalysisError(text)) == shown and str(InvalidModel(text)) == shown
