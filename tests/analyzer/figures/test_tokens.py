"""Coloured text shows every token with its score, in colours that can be read, and runs nothing that a token holds."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from rich.console import Console

from analyzer.errors import ShapeError
from analyzer.figures import ScoredTokens, limit_of, plot_tokens, tokens_text
from analyzer.figures.tokens import INK, chips
from analyzer.methods.token_scores import plot_token_scores, scored_tokens, token_scores
from analyzer.report import tokens_html

TEXT = ScoredTokens(
    ["the", "food", "was", "not", "good", "."], np.array([0.0, 0.1, 0.0, -2.0, 1.0, 0.0]), "caption", -0.91
)
# Rows of sRGB's luminance, and the grounds of the page in light and dark with their ink.
LUMINANCE = (0.2126, 0.7152, 0.0722)
GROUNDS = (("#ffffff", INK), ("#1c1f25", "#e6e7ea"))


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """The contrast ratio of two colours, as WCAG 2.1 defines it."""
    linear = (np.where(c <= 0.03928, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) for c in (a, b))
    low, high = sorted(float(c @ LUMINANCE) + 0.05 for c in linear)
    return high / low


def test_the_sign_has_its_colour_and_the_size_its_fullness():
    _, food, _, negation, good, stop = chips(TEXT, 2.0)
    assert negation.colour[2] > negation.colour[0] and good.colour[0] > good.colour[2]
    assert negation.colour[3] > good.colour[3] > food.colour[3] > stop.colour[3] == 0
    assert [negation.score, good.score, stop.score] == ["−2.00", "+1.00", "0"]


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(("ground", "ink"), GROUNDS)
def test_ink_can_be_read_on_every_colour(sign, ground, ink):
    scores = sign * np.linspace(0, 1, 21)
    for chip in chips(ScoredTokens(["word"] * 21, scores), 1.0):
        colour, opacity = np.array(chip.colour[:3]), chip.colour[3]
        shown = opacity * colour + (1 - opacity) * np.array(to_rgba(ground)[:3])
        assert contrast(shown, np.array(to_rgba(ink)[:3])) >= 4.5


def test_a_figure_has_every_token_its_score_and_what_they_sum_to():
    figure = plot_tokens([TEXT, TEXT], title="words", unit="logits")
    (axes,) = figure.axes
    told = [text.get_text() for text in axes.texts]
    assert all(told.count(token) == 2 for token in TEXT.tokens)
    assert told.count("−2.00") == 2 and "speaks against  −2.00" in told
    assert told.count("the tokens sum to −0.90 of −0.91") == 2
    assert {"words", "logits", "caption"} <= set(told)
    grounds = {patch.get_facecolor() for patch in axes.patches}
    assert grounds == {chip.colour for chip in chips(TEXT, 2.0)}


def test_chips_of_a_long_text_stay_on_the_page_and_apart():
    words = ScoredTokens([f"token{k}" * (1 + k % 4) for k in range(60)] + ["x" * 500], np.ones(61))
    (axes,) = plot_tokens([words]).axes
    width, height = axes.get_xlim()[1], axes.get_ylim()[0]
    boxes = [
        (p.get_x(), p.get_y(), p.get_x() + p.get_width(), p.get_y() + p.get_height()) for p in axes.patches
    ]
    assert all(min(left, top) > 0 and right < width and bottom < height for left, top, right, bottom in boxes)
    for k, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[k + 1 :]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


def test_a_page_shows_tokens_as_text():
    hostile = ScoredTokens(["<script>alert(1)</script>", "a\nb", " ", "\x1b[31m", "$x$"], np.ones(5))
    page = tokens_html([hostile], title="<b>")
    assert "<script" not in page and "\x1b" not in page
    assert re.findall(r"<b style[^>]*>(.*?)</b>", page, re.DOTALL) == [
        "&lt;script&gt;alert(1)&lt;/script&gt;", "a↵b", "␣", "\\x1b[31m", "$x$",
    ]  # fmt: skip
    assert page.count("+1.00</small>") == 5


def test_a_terminal_shows_each_score_below_its_token_within_its_width():
    long = ScoredTokens(TEXT.tokens * 9, np.tile(TEXT.scores, 9))
    console = Console(width=40, file=io.StringIO(), color_system="truecolor", record=True)
    console.print(tokens_text(long, limit_of([long]), 40))
    plain = console.export_text(clear=False).splitlines()
    assert max(map(len, plain)) <= 40
    assert plain[-1] == "the tokens sum to −8.10"
    for words, scores in zip(plain[:-1:2], plain[1:-1:2], strict=True):
        for token in re.finditer(r"\S+", words):
            below = scores[token.start() - 1 : token.end() + 1].strip()
            assert below in {chip.score for chip in chips(long, 2.0) if chip.text == token.group()}
    red, green, blue = chips(TEXT, 2.0)[3].on_paper
    assert f"48;2;{red};{green};{blue}m" in console.export_text(styles=True)


def test_scores_that_are_not_one_finite_number_a_token_are_refused():
    with pytest.raises(ValueError, match=r"scores of shape \(2,\) for 1 tokens"):
        ScoredTokens(["a"], np.ones(2))
    with pytest.raises(ValueError, match="NaN"):
        ScoredTokens(["a"], np.array([np.nan]))


def test_scores_are_sums_over_vectors_and_the_rest_of_a_row_keeps_the_sum():
    attributions = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    scores = token_scores(attributions)
    np.testing.assert_array_equal(scores, [[6, 22, 38], [54, 70, 86]])
    first, second = scored_tokens(scores, [["a"], ["a", "b", "c"]], scores.sum(axis=1))
    assert first.tokens == ("a", "(2 more)") and list(first.scores) == [6, 60]
    assert second.tokens == ("a", "b", "c") and second.explained == 210
    (silent,) = scored_tokens(np.array([[1.0, 0.0]]), ["a"], np.ones(1))
    assert silent.tokens == ("a",)


def test_names_that_do_not_fit_are_refused():
    with pytest.raises(ShapeError, match="3 names for the 2 tokens of sample 0"):
        scored_tokens(np.ones((1, 2)), ["a", "b", "c"], np.ones(1))
    with pytest.raises(ShapeError, match="1 rows of tokens for 2 samples"):
        scored_tokens(np.ones((2, 2)), [["a", "b"]], np.ones(2))


def test_tokens_without_names_are_bars():
    figure = plot_token_scores(np.array([[1.0, -2.0]]), None, np.ones(1), "embedding")
    (axes,) = figure.axes
    assert [bar.get_width() for bar in axes.patches] == [1.0, -2.0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["token 0", "token 1"]
