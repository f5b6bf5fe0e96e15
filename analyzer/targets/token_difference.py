"""How much likelier a language model finds one token than another, as a Target."""

from __future__ import annotations

import numpy as np

from analyzer.backends import Differentiable, ModelLike
from analyzer.target.target import Target
from analyzer.targets.language import LanguageModel, OnePerSample
from analyzer.types import Inputs


def token_difference(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    token: OnePerSample,
    other: OnePerSample,
    *,
    position: OnePerSample | None = None,
    output: str | None = None,
    padding: int | None = None,
) -> Target:
    """Return the Target of the log-probability of one token minus that of another, the difference of their logits.

    model, inputs, position, output, padding: as for `next_token`. token, other: ids, one for all samples or one for
    each.
    Raises TargetError for a position that is padding or a token outside the vocabulary.
    """
    language = LanguageModel.read(model, inputs, output, padding)
    columns = language.positions(position)
    first, second = (
        Target(language.output, position=np.stack([columns, language.tokens(one)], axis=1))
        for one in (token, other)
    )
    return first - second
