"""A matrix of generated tokens over the tokens before each, as a figure: red supports a generated token, blue opposes.

From a TokenMatrix to a figure, or to cells for an HTML page. Cells of tokens that come later are left out. Refuses
scores that are not one finite number for every cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.figures.canvas import new_figure
from analyzer.figures.tokens import INK, SOFT, Chip, Legend, ScoredTokens, chip_of, legend, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# In points.
CELL, ROW, LABEL, MARGIN = 30.0, 19.0, 8.0, 12.0
MOST_CHARACTERS = 18
# More cells than this are drawn without their numbers.
MOST_NUMBERS = 600


@dataclass(frozen=True)
class TokenMatrix:
    """scores (G, T), and seen (G, T): whether the column comes before the row's token. columns (T,), rows (G,): tokens.

    probabilities (G,): of the rows' tokens. special: whether a column is a mark of the tokenizer: it sets no scale.
    prompt: the number of columns before the first generated token.
    Raises ValueError where the shapes do not match, or a score is not finite.
    """

    scores: np.ndarray
    seen: np.ndarray
    columns: Sequence[str]
    rows: Sequence[str]
    probabilities: np.ndarray
    special: Sequence[bool] = ()
    prompt: int = 0

    def __post_init__(self) -> None:
        if np.shape(self.scores) != (len(self.rows), len(self.columns)):
            raise ValueError(
                f"scores of shape {np.shape(self.scores)} for {len(self.rows)} rows and {len(self.columns)} columns. "
                "Fix: give one score for each cell"
            )
        if not np.isfinite(self.scores).all():
            raise ValueError("a score is NaN or infinite. Fix: give finite scores")

    @property
    def legend(self) -> Legend:
        """The legend of all cells, whose largest score has the fullest colour."""
        cells = [score for row in self.cells_as_texts() for score in row.scores]
        return legend([ScoredTokens([""] * len(cells), np.asarray(cells))])

    def cells_as_texts(self) -> list[ScoredTokens]:
        """The cells of each row that count for the scale."""
        counted = ~np.asarray(self.special, bool) if self.special else np.ones(len(self.columns), bool)
        return [
            ScoredTokens([""] * int((seen & counted).sum()), np.asarray(row)[seen & counted])
            for row, seen in zip(self.scores, self.seen, strict=True)
        ]

    def chips(self, limit: float) -> list[list[Chip | None]]:
        """The cells of each row as they are drawn; None of a token that comes later."""
        special = self.special or [False] * len(self.columns)
        return [
            [
                chip_of("", float(score), limit, coloured=not mark) if seen else None
                for score, seen, mark in zip(row, there, special, strict=True)
            ]
            for row, there in zip(self.scores, self.seen, strict=True)
        ]


def plot_matrix(matrix: TokenMatrix, *, title: str = "", unit: str = "") -> Figure:
    """Return the matrix as a figure, with a legend. unit: of the scores."""
    found = matrix.legend
    limit = found.limit
    names = [_short(visible(token)) for token in matrix.columns]
    rows = [_short(visible(token)) for token in matrix.rows]
    left = MARGIN + 0.62 * LABEL * max(map(len, rows)) + 40.0
    top = MARGIN + (24.0 if title else 0.0) + 0.62 * LABEL * max(map(len, names)) + 10.0
    width = max(left + CELL * len(names) + MARGIN, 420.0)
    height = top + ROW * len(rows) + 52.0
    figure = new_figure(width / 72, height / 72, dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    if title:
        _write(axes, MARGIN, MARGIN + 6, title, size=12, weight="bold")
    for column, name in enumerate(names):
        shade = INK if column < matrix.prompt else SOFT
        _write(
            axes, left + CELL * (column + 0.5), top - 6, name,
            size=LABEL, rotation=90, ha="center", va="bottom", color=shade,
        )  # fmt: skip
    numbered = len(names) * len(rows) <= MOST_NUMBERS
    for row, cells in enumerate(matrix.chips(limit)):
        middle = top + ROW * (row + 0.5)
        _write(axes, left - 40.0, middle, rows[row], size=LABEL, ha="right")
        _write(axes, left - 6.0, middle, f"{matrix.probabilities[row]:.2f}", size=6.5, color=SOFT, ha="right")
        for column, chip in enumerate(cells):
            if chip is not None:
                _cell(axes, left + CELL * column, top + ROW * row, chip, numbered)
    _legend(axes, found, unit, top + ROW * len(rows) + 14, width)
    return figure


def _cell(axes: Any, left: float, top: float, chip: Chip, numbered: bool) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(
        Rectangle(
            (left + 0.5, top + 0.5),
            CELL - 1,
            ROW - 1,
            facecolor=chip.colour,
            edgecolor="#e3e6eb",
            linewidth=0.5,
        )
    )
    if numbered:
        _write(axes, left + CELL / 2, top + ROW / 2, chip.score, size=6.5, ha="center")


def _legend(axes: Any, found: Legend, unit: str, top: float, width: float) -> None:
    limits = axes.get_xlim(), axes.get_ylim()
    ramp = np.array([chip_of("", at, 1.0).colour for at in np.linspace(-1, 1, 256)])[None]
    left, long = width / 2 - 60, 120.0
    axes.imshow(ramp, extent=(left, left + long, top + 8, top), aspect="auto", interpolation="nearest")
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])
    _write(axes, left - 6, top + 4, f"speaks against  {found.ends[0]}", size=7.5, color=SOFT, ha="right")
    _write(axes, left + long + 6, top + 4, f"{found.ends[1]}  speaks for", size=7.5, color=SOFT)
    told = "rows: generated tokens with their probabilities; columns: the tokens before each"
    _write(axes, width / 2, top + 15, unit, size=7, color=SOFT, ha="center")
    _write(axes, width / 2, top + 25, told, size=7, color=SOFT, ha="center")


def _short(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _write(axes: Any, x: float, y: float, text: str, **look: Any) -> None:
    # Tokens are data: a dollar sign begins no formula.
    axes.text(x, y, text, parse_math=False, **{"color": INK, "va": "center_baseline", **look})
