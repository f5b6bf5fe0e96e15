"""Coloured text: tokens with a score each, as a figure and as an HTML page; terminals and reports read the same parts.

Red speaks for what is explained and blue against it, the fuller the larger; below each token stands its score, below
each text what the scores sum to. Refuses scores that are not one finite number for every token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.figures.canvas import new_figure
from analyzer.figures.palette import signed_colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.text import Text

# Ink on the fullest colour stays readable on paper, and pale ink on it on a dark ground.
STRENGTH = 0.6
# A score below this share of the largest has no colour: its sign says nothing.
FAINT = 0.02
MOST_CHARACTERS = 48
INK, SOFT = "#1d2129", "#5d6470"
BREAKS = {"\n": "↵", "\t": "⇥", "\r": "␍", " ": "␣"}


@dataclass(frozen=True)
class ScoredTokens:
    """One text. scores (T,): one for each of the tokens. caption: a line above. explained: what they must sum to.

    special: whether a token is a mark of the tokenizer, such as [CLS]: it is drawn without colour, and its score does
    not set the scale. words: the text of each word and the number of its tokens, for `by_word`.
    Raises ValueError where scores and tokens do not match, or a score is not finite.
    """

    tokens: Sequence[str]
    scores: np.ndarray
    caption: str = ""
    explained: float | None = None
    special: Sequence[bool] = ()
    words: Sequence[tuple[str, int]] = ()

    def __post_init__(self) -> None:
        if np.shape(self.scores) != (len(self.tokens),):
            raise ValueError(
                f"scores of shape {np.shape(self.scores)} for {len(self.tokens)} tokens. Fix: give one score a token"
            )
        if not np.isfinite(self.scores).all():
            raise ValueError("a token's score is NaN or infinite. Fix: give finite scores")
        for own, count in ((self.special, len(self.special)), (self.words, sum(n for _, n in self.words))):
            if own and count != len(self.tokens):
                raise ValueError(
                    f"special or words of {count} tokens for {len(self.tokens)}. Fix: give one for each token"
                )

    @property
    def coloured(self) -> np.ndarray:
        """Whether each token is a part of the text, (T,)."""
        return ~np.asarray(self.special, bool) if self.special else np.ones(len(self.tokens), bool)

    def by_word(self) -> ScoredTokens:
        """Return the text with a token for each word, whose score is the sum over the parts of the word.

        Raises ValueError where the words are not known, as of names that were given as lists.
        """
        if not self.words:
            raise ValueError(
                "the words of the tokens are not known. Fix: give the tokens as load_texts returns them"
            )
        starts = np.cumsum([0, *(count for _, count in self.words)])[:-1]
        special = [not self.coloured[start] for start in starts]
        return ScoredTokens(
            [text for text, _ in self.words],
            np.add.reduceat(np.asarray(self.scores, np.float64), starts),
            self.caption,
            self.explained,
            special if any(special) else (),
            [(text, 1) for text, _ in self.words],
        )

    def sum_text(self, limit: float) -> str:
        """What the scores add up to, and to what they should, in the digits of the largest score."""
        total = score_text(float(np.sum(self.scores, dtype=np.float64)), limit)
        apart = np.asarray(self.scores)[~self.coloured]
        marks = f", special tokens {score_text(float(apart.sum()), limit)} of it" if apart.any() else ""
        if self.explained is None:
            return f"the tokens sum to {total}{marks}"
        return f"the tokens sum to {total} of {score_text(self.explained, limit)}{marks}"


@dataclass(frozen=True)
class Chip:
    """A token as it is drawn: its text, its score's, and its colour (R, G, B, opacity) in [0, 1]."""

    text: str
    score: str
    colour: tuple[float, float, float, float]

    @property
    def css(self) -> str:
        """The colour as CSS."""
        red, green, blue = (round(255 * part) for part in self.colour[:3])
        return f"rgb({red} {green} {blue} / {self.colour[3]:.2f})"

    @property
    def on_paper(self) -> tuple[int, int, int]:
        """The colour on white, in 0 to 255."""
        opacity = self.colour[3]
        red, green, blue = (round(255 * (opacity * part + 1 - opacity)) for part in self.colour[:3])
        return red, green, blue


def chips(text: ScoredTokens, limit: float) -> list[Chip]:
    """A text's tokens as they are drawn. limit: the score of the fullest colour."""
    return [
        chip_of(token, float(score), limit, coloured=bool(own))
        for token, score, own in zip(text.tokens, text.scores, text.coloured, strict=True)
    ]


def chip_of(token: str, score: float, limit: float, *, coloured: bool = True) -> Chip:
    """A token as it is drawn; without colour where it does not count."""
    return Chip(visible(token), score_text(score, limit), _colour(score if coloured else 0.0, limit))


def limit_of(texts: Sequence[ScoredTokens]) -> float:
    """The score of the fullest colour: the largest of all texts, so that their colours compare."""
    sizes = (float(np.abs(text.scores[text.coloured]).max(initial=0)) for text in texts)
    return max(sizes, default=0.0)


def visible(token: str) -> str:
    """A token whose breaks and controls are seen and do nothing."""
    if not token:
        return ""
    if not token.strip(" "):
        return BREAKS[" "] * max(1, len(token))
    return "".join(
        c if c.isprintable() else BREAKS.get(c, c.encode("unicode_escape").decode()) for c in token
    )


def score_text(score: float, limit: float) -> str:
    """A score as its neighbours are written, three digits of the largest: "+1.23", "−0.05", "0"."""
    digits = int(np.clip(2 - np.floor(np.log10(limit)), 0, 9)) if limit else 0
    text = f"{score:+.{digits}f}"
    return text.replace("-", "−") if float(text) else "0"


def _colour(score: float, limit: float) -> tuple[float, float, float, float]:
    scaled = float(np.clip(score / limit, -1, 1)) if limit else 0.0
    red, green, blue = signed_colours(np.array(scaled))
    # Below 1 the power lets the smaller words be seen beside the one that decides.
    opacity = STRENGTH * abs(scaled) ** 0.75 if abs(scaled) >= FAINT else 0.0
    return float(red), float(green), float(blue), opacity


def tokens_text(text: ScoredTokens, limit: float, width: int) -> Text:
    """A text for a terminal of so many columns: its tokens on their colours, and below each its score."""
    from rich.cells import cell_len
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    lines: list[tuple[Text, Text]] = []
    for chip in chips(text, limit):
        columns = max(cell_len(chip.text), len(chip.score)) + 2
        if not lines or cell_len(lines[-1][0].plain) + columns > width:
            lines.append((Text(), Text(style="dim")))
        above, below = lines[-1]
        gap = columns - cell_len(chip.text)
        shaded = Style(color=INK, bgcolor=Color.from_rgb(*chip.on_paper)) if chip.colour[3] else Style()
        above.append(" " * (gap // 2) + chip.text + " " * (gap - gap // 2), shaded)
        below.append(chip.score.center(columns))
    whole = [Text(text.caption)] if text.caption else []
    return Text("\n").join(
        [*whole, *(part for line in lines for part in line), Text(text.sum_text(limit), "dim")]
    )


@dataclass(frozen=True)
class Legend:
    """What the colours stand for: the score of the fullest one, their unit, and the ramp as CSS."""

    limit: float
    unit: str
    ramp: str

    @property
    def ends(self) -> tuple[str, str]:
        """The scores at both ends."""
        return score_text(-self.limit, self.limit), score_text(self.limit, self.limit)


def legend(texts: Sequence[ScoredTokens], unit: str = "") -> Legend:
    """The legend of texts that are shown together."""
    stops = (Chip("", "", _colour(at, 1.0)).css for at in np.linspace(-1, 1, 17))
    return Legend(limit_of(texts), unit, f"linear-gradient(90deg, {', '.join(stops)})")


# In points: the page, its margin, the sizes of type, a chip and the space around it, and a line of chips.
WIDTH, MARGIN, SIZE, SMALL = 560.0, 14.0, 11.0, 7.0
PADDING, GAP, CHIP, LINE = 4.0, 3.0, 18.0, 34.0


def plot_tokens(texts: Sequence[ScoredTokens], *, title: str = "", unit: str = "") -> Figure:
    """The texts as a figure, one below the other, with a legend. unit: of the scores."""

    limit = limit_of(texts)
    laid = [_lines(chips(text, limit)) for text in texts]
    head = MARGIN + (22.0 if title else 0.0)
    heights = [
        (16.0 if text.caption else 4.0) + LINE * len(lines) + 18.0
        for text, lines in zip(texts, laid, strict=True)
    ]
    height = head + sum(heights) + 34.0
    figure = new_figure(WIDTH / 72, height / 72, dpi=150)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(height, 0)
    if title:
        _write(axes, MARGIN, MARGIN + 6, title, size=12, weight="bold")
    top = head
    for text, lines, space in zip(texts, laid, heights, strict=True):
        _draw_text(axes, text, lines, top, limit)
        top += space
    _draw_legend(axes, limit, unit, top + 6)
    return figure


def _lines(tokens: Sequence[Chip]) -> list[list[tuple[float, float, Chip]]]:
    """The chips in lines that fit the page, each with its left edge and its width."""
    lines: list[list[tuple[float, float, Chip]]] = [[]]
    left = MARGIN
    for chip in tokens:
        chip = Chip(_shortened(chip.text), chip.score, chip.colour)
        width = max(_measured(chip.text, SIZE), _measured(chip.score, SMALL)) + 2 * PADDING
        if lines[-1] and left + width > WIDTH - MARGIN:
            lines.append([])
            left = MARGIN
        lines[-1].append((left, width, chip))
        left += width + GAP
    return lines


def _shortened(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _measured(text: str, size: float) -> float:
    """The width of a text in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    return float(text_to_path.get_text_width_height_descent(text, FontProperties(size=size), False)[0])


def _draw_text(
    axes: Any, text: ScoredTokens, lines: list[list[tuple[float, float, Chip]]], top: float, limit: float
) -> None:
    from matplotlib.patches import FancyBboxPatch

    if text.caption:
        _write(axes, MARGIN, top + 5, text.caption, size=8.5, color=SOFT)
        top += 12.0
    for line in lines:
        for left, width, chip in line:
            rounded = f"round,pad=0,rounding_size={PADDING}"
            axes.add_patch(
                FancyBboxPatch(
                    (left, top + 4), width, CHIP, boxstyle=rounded, facecolor=chip.colour, linewidth=0
                )
            )
            middle = left + width / 2
            _write(axes, middle, top + 4 + CHIP / 2, chip.text, size=SIZE, ha="center")
            _write(axes, middle, top + 4 + CHIP + 6, chip.score, size=SMALL, color=SOFT, ha="center")
        top += LINE
    _write(axes, MARGIN, top + 5, text.sum_text(limit), size=8, color=SOFT)


def _draw_legend(axes: Any, limit: float, unit: str, top: float) -> None:
    ramp = np.array([_colour(at, 1.0) for at in np.linspace(-1, 1, 256)])[None]
    left, width = WIDTH / 2 - 70, 140.0
    axes.imshow(ramp, extent=(left, left + width, top + 8, top), aspect="auto", interpolation="nearest")
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(axes.figure.get_figheight() * 72, 0)
    _write(
        axes,
        left - 6,
        top + 4,
        f"speaks against  {score_text(-limit, limit)}",
        size=7.5,
        color=SOFT,
        ha="right",
    )
    _write(axes, left + width + 6, top + 4, f"{score_text(limit, limit)}  speaks for", size=7.5, color=SOFT)
    if unit:
        _write(axes, left + width / 2, top + 15, unit, size=7, color=SOFT, ha="center")


def _write(axes: Any, x: float, y: float, text: str, **look: Any) -> None:
    # Tokens are data: a dollar sign begins no formula.
    axes.text(x, y, text, va="center_baseline", parse_math=False, **{"color": INK, **look})
