"""Write a matrix of generated tokens as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence

from analyzer.figures.matrix import TokenMatrix
from analyzer.figures.tokens import ScoredTokens, legend, visible
from analyzer.report.templates import template


def matrix_html(matrix: TokenMatrix, texts: Sequence[ScoredTokens], *, title: str, unit: str = "") -> str:
    """Return the matrix, and below it the tokens before each generated one as coloured text, without a script.

    unit: of the scores, for the legend.
    """
    found = matrix.legend
    rows = [
        (visible(token), f"{probability:.2f}", cells)
        for token, probability, cells in zip(
            matrix.rows, matrix.probabilities, matrix.chips(found.limit), strict=True
        )
    ]
    return template("matrix.html").render(
        title=title,
        columns=[(visible(token), index >= matrix.prompt) for index, token in enumerate(matrix.columns)],
        rows=rows,
        texts=texts,
        legend=legend(texts, unit),
    )
