"""The mean log-probability that a decoder gives the tokens of a sequence, as a Target."""

from __future__ import annotations

import numpy as np

from analyzer.backends import Differentiable, ModelLike
from analyzer.errors import TargetError
from analyzer.target.target import Target
from analyzer.targets.language import LanguageModel
from analyzer.targets.next_token import LOGARITHM
from analyzer.types import Inputs


def sequence_log_probability(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    *,
    start: int = 1,
    mean: bool = True,
    output: str | None = None,
    padding: int | None = None,
) -> Target:
    """Return the Target of the log-probability of each sequence's own tokens, each given those before it.

    model: a decoder with logits (N, T, vocabulary), or `differentiate(model)`. inputs, output, padding: as for
        `next_token`.
    start: the first token that counts, from 1, since nothing predicts the first token of a sequence; such as the length
        of a prompt, where its continuation is scored. Padding does not count.
    mean: divide by the number of tokens that count; False gives their sum.
    Raises TargetError where a sequence has no token that counts.
    """
    language = LanguageModel.read(model, inputs, output, padding)
    if language.vocabulary is None:
        raise TargetError(
            f"expected a known size of the vocabulary, and the shape of {language.output!r} leaves it open. Fix: "
            "export the model with a fixed vocabulary"
        )
    if start < 1:
        raise TargetError(
            f"start={start}: nothing predicts the first token. Fix: give start=1, or a later token"
        )
    language.tokens(int(language.ids[language.kept].max()))
    weights = np.zeros((*language.ids.shape, language.vocabulary), np.float32)
    for sample, kept in enumerate(language.kept):
        columns = np.flatnonzero(kept)
        scored = columns[start:]
        if not len(scored):
            raise TargetError(
                f"start={start}: sample {sample} has {len(columns)} tokens, and none of them counts. Fix: give a "
                "smaller start, or longer sequences"
            )
        weights[sample, columns[start - 1 : -1], language.ids[sample, scored]] = (
            1 / len(scored) if mean else 1
        )
    return Target(language.output, weights=weights, after=LOGARITHM, axis=-1)
