"""Attributions of embedded tokens, a score for each token: summed over the vector, named, ready to be drawn.

From attributions (N, T, …, dim) and the tokens' names to ScoredTokens and figures. Refuses more names than there are
tokens, and rows of names that are not one for each sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyzer.errors import ShapeError
from analyzer.texts.load import Texts
from analyzer.texts.pieces import words_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analyzer.figures import ScoredTokens
    from analyzer.methods.result import Attribution

TokenNames = Sequence[str] | Sequence[Sequence[str]] | Texts
UNIT = "units of the output"


def token_scores(attributions: np.ndarray) -> np.ndarray:
    """(N, T): each token's attribution, the sum over its vector; in double precision."""
    summed: np.ndarray = attributions.reshape(*attributions.shape[:2], -1).sum(axis=-1, dtype=np.float64)
    return summed


def scores_of(result: Attribution, name: str) -> np.ndarray | None:
    """Return a number for each token (N, T) of a tensor; None where the result has none.

    It is that of the method's own map where it draws one, else the sum over each vector.
    """
    drawn = result.by_tensor(getattr(result, "complete_map", result.maps))
    if name in drawn:
        return drawn[name]
    attributions = result.by_tensor(result.attributions)
    return token_scores(attributions[name]) if name in attributions and not result.is_map else None


def scored_tokens(
    scores: np.ndarray, names: TokenNames, explained: np.ndarray | None, captions: Sequence[str] = ()
) -> list[ScoredTokens]:
    """One text a sample, of scores (N, T). names: a row of tokens for each sample, one for all of them, or Texts, whose
    words are known.

    A row may end before the T tokens do, as a sentence before its padding: where the scores of the rest are not all
    zero, their sum stands as one more token. explained (N,): what the scores must sum to, None of a part.
    Raises ShapeError where names and scores do not go together.
    """
    from analyzer.figures import ScoredTokens

    rows: list[list[str]] = []
    pieces = names.pieces if isinstance(names, Texts) else []
    names = names.tokens if isinstance(names, Texts) else names
    for name in names:
        rows.append([name] if isinstance(name, str) else list(name))
    if all(isinstance(name, str) for name in names):
        rows = [[name for row in rows for name in row]] * len(scores)
    if len(rows) != len(scores):
        raise ShapeError(
            f"{len(rows)} rows of tokens for {len(scores)} samples. Fix: give a row of tokens for each sample"
        )
    texts = []
    for index, (row, values) in enumerate(zip(rows, scores, strict=True)):
        if len(row) > len(values):
            raise ShapeError(
                f"{len(row)} names for the {len(values)} tokens of sample {index}. Fix: give at most one for each"
            )
        rest = values[len(row) :]
        special = [piece.special for piece in pieces[index]] if pieces else []
        words = words_of(pieces[index]) if pieces else []
        if rest.any():
            row, values = [*row, f"({len(rest)} more)"], [*values[: len(row)], rest.sum()]
            special, words = [*special, True] if pieces else [], [*words, (row[-1], 1)] if pieces else []
        shown = np.asarray(values[: len(row)], np.float64)
        caption = captions[index] if captions else ""
        whole = None if explained is None else float(explained[index])
        texts.append(ScoredTokens(tuple(row), shown, caption, whole, special, words))
    return texts


def plot_token_scores(
    scores: np.ndarray, names: TokenNames | None, explained: np.ndarray, title: str
) -> Figure:
    """Coloured tokens; where they have no names, a bar for each."""
    from analyzer.figures import Look, drawable, plot_input, plot_tokens

    scores, title = drawable(scores, title)
    if names is not None:
        return plot_tokens(scored_tokens(scores, names, explained), title=title, unit=UNIT)
    numbered = [f"token {k}" for k in range(scores.shape[1])]
    return plot_input(scores, None, Look(title, f"{UNIT}, per token", True, features=numbered), table=True)
