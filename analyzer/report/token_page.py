"""Write coloured text as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from analyzer.figures.tokens import ScoredTokens, legend
from analyzer.report.templates import template


def tokens_html(texts: Sequence[ScoredTokens], *, title: str = "Coloured text", unit: str = "") -> str:
    """The texts as one self-contained page, without a script. unit: of the scores, for the legend."""
    return template("tokens.html").render(title=title, texts=texts, legend=legend(texts, unit))
