"""The attribution of generated text: a matrix of generated tokens over the tokens before each, and its views."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from analyzer.errors import AnalysisError
from analyzer.methods.completeness import Completeness, measure
from analyzer.methods.result import Attribution
from analyzer.methods.subset import rows_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analyzer.figures import ScoredTokens
    from analyzer.figures.matrix import TokenMatrix

LOGARITHM, LOGIT = "log-probability", "logit"


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class GenerationAttribution(Attribution):
    """The result of `attribute_generation`: a row for each of G generated tokens, a column for each of T tokens.

    attributions: (G, T), also called `scores`: what each token adds to a generated one; 0 of tokens that come later.
    tokens: the tokens of the columns: the prompt, then the generated ones but the last. generated: those of the rows.
    ids (T,), target (G,): their ids. output (G,): the explained log-probability, or logit, of each generated token.
    probabilities (G,): of the generated tokens. prompt: the number of columns of the prompt.
    starts: where each column begins in the sequence. ends: how many tokens each generated one follows.
    special: whether a column is a mark of the tokenizer. words: text and tokens of each word of the columns;
    row_words: of the rows; both empty without a tokenizer.
    """

    tokens: tuple[str, ...]
    generated: tuple[str, ...]
    ids: np.ndarray
    probabilities: np.ndarray
    prompt: int
    starts: tuple[int, ...]
    ends: tuple[int, ...]
    explained: str = LOGARITHM
    special: tuple[bool, ...] = ()
    words: tuple[tuple[str, int], ...] = ()
    row_words: tuple[tuple[str, int], ...] = ()

    @property
    def scores(self) -> np.ndarray:
        """(G, T): what each token adds to each generated token; the attributions."""
        found: np.ndarray = self.attributions
        return found

    @property
    def seen(self) -> np.ndarray:
        """(G, T): whether the column comes before the generated token."""
        found: np.ndarray = np.asarray(self.starts)[None] < np.asarray(self.ends)[:, None]
        return found

    @property
    def caption(self) -> str:
        """The name of the method, and that it explains generated text."""
        return f"{super().caption} of generated tokens"

    def is_table(self, name: str, inputs: np.ndarray | None) -> bool:
        """Return True: the columns are tokens."""
        return True

    def class_of(self, sample: int) -> str:
        """Return the generated token of a row."""
        return repr(self.generated[sample])

    def __getitem__(self, key: Any) -> Self:
        """Return the result of some generated tokens: result[2], result[:3], result[[0, 2]]."""
        rows = rows_of(key, len(self))
        sums = self.completeness
        return replace(
            self,
            attributions=self.scores[rows],
            output=self.output[rows],
            target=None if self.target is None else self.target[rows],
            probabilities=self.probabilities[rows],
            generated=tuple(self.generated[row] for row in rows),
            ends=tuple(self.ends[row] for row in rows),
            row_words=(),
            completeness=None
            if sums is None
            else Completeness(**{k: v[rows] for k, v in vars(sums).items()}),
        )

    def by_word(self, *, rows: bool = False) -> Self:
        """Return the result with a column for each word, the sum over its tokens.

        rows: join the generated tokens, too: the log-probability of a word is the sum of those of its tokens.
        Raises AnalysisError where the words are not known, or logits are explained and `rows` would add them.
        """
        if not self.words or (rows and not self.row_words):
            raise AnalysisError(
                "the words of the tokens are not known. Fix: give attribute_generation a tokenizer, and join the "
                "words before rows are taken"
            )
        starts = _starts(self.words)
        special = tuple(self.special[start] for start in starts) if self.special else ()
        found = replace(
            self,
            attributions=np.add.reduceat(self.scores, starts, axis=1),
            tokens=tuple(text for text, _ in self.words),
            ids=self.ids[starts],
            starts=tuple(self.starts[start] for start in starts),
            prompt=int(np.searchsorted(starts, self.prompt)),
            words=tuple((text, 1) for text, _ in self.words),
            special=special,
        )
        return found._rows_by_word() if rows else found

    def _rows_by_word(self) -> Self:
        if self.explained != LOGARITHM:
            raise AnalysisError(
                "logits of the tokens of a word do not sum to a logit. Fix: explain log-probabilities, or omit rows"
            )
        starts = _starts(self.row_words)
        scores = np.add.reduceat(self.scores, starts, axis=0)
        output = np.add.reduceat(self.output, starts)
        sums = self.completeness
        if sums is not None:
            wanted, total = (np.add.reduceat(one, starts) for one in (sums.output, sums.total))
            sums = measure(wanted, total, np.abs(scores).sum(axis=1), np.add.reduceat(sums.floor, starts))
        return replace(
            self,
            attributions=scores,
            output=output,
            target=None,
            probabilities=np.multiply.reduceat(self.probabilities, starts),
            generated=tuple(text for text, _ in self.row_words),
            ends=tuple(self.ends[start] for start in starts),
            row_words=tuple((text, 1) for text, _ in self.row_words),
            completeness=sums,
        )

    def texts(self) -> list[ScoredTokens]:
        """Return the tokens before each generated one as coloured text, for `plot_tokens` and `tokens_html`."""
        from analyzer.figures import ScoredTokens

        found = []
        for row, seen in enumerate(self.seen):
            columns = np.flatnonzero(seen)
            found.append(
                ScoredTokens(
                    [self.tokens[column] for column in columns],
                    np.asarray(self.scores[row, columns], np.float64),
                    f"{self._shown(row)}, probability {self.probabilities[row]:.3g}",
                    None if self.completeness is None else float(self.completeness.output[row]),
                    [self.special[column] for column in columns] if self.special else (),
                )
            )
        return found

    def _shown(self, row: int) -> str:
        """A generated token without the space before it."""
        return self.generated[row].strip(" ") or self.generated[row]

    def matrix(self) -> TokenMatrix:
        """Return the numbers and names that `plot` and `to_html` draw."""
        from analyzer.figures.matrix import TokenMatrix

        rows = [self._shown(row) for row in range(len(self))]
        return TokenMatrix(
            self.scores, self.seen, self.tokens, rows, self.probabilities, self.special, self.prompt
        )

    def plot(self, images: Any = None, *, title: str | None = None, **looks: Any) -> Figure:
        """Draw the matrix: a row for each generated token, a column for each token before it.

        title: above the figure; default the method. images and other looks of `Attribution.plot` are not used.
        """
        from analyzer.figures.canvas import shown_by_pyplot
        from analyzer.figures.matrix import plot_matrix

        with shown_by_pyplot():
            return plot_matrix(self.matrix(), title=title or self.caption, unit=self.unit)

    def to_html(self, path: str | os.PathLike[str] | None = None, *, title: str | None = None) -> str:
        """Return the matrix and the coloured texts as one HTML page, without a script. path: a file to write it to."""
        from analyzer.report.matrix_page import matrix_html
        from converters.system.atomic import write_text

        page = matrix_html(self.matrix(), self.texts(), title=title or self.caption, unit=self.unit)
        if path is not None:
            write_text(Path(path), page)
        return page

    @property
    def unit(self) -> str:
        """The unit of the scores."""
        return f"{self.explained} of the generated token" if self.signed else "saliency, without unit"

    @property
    def text(self) -> str:
        """The generated text, as the tokens read."""
        return "".join(self.generated)


def _starts(words: Sequence[tuple[str, int]]) -> np.ndarray:
    """The index of the first token of each word."""
    found: np.ndarray = np.cumsum([0, *(count for _, count in words)])[:-1]
    return found
