"""The next token of a language model: its logit or log-probability at a position, as a Target."""

from __future__ import annotations

import numpy as np

from analyzer.backends import Differentiable, ModelLike
from analyzer.target.target import Target
from analyzer.targets.language import LanguageModel, OnePerSample
from analyzer.types import Inputs

LOGARITHM = "log-softmax"


def next_token(
    model: Differentiable | ModelLike,
    inputs: Inputs,
    token: OnePerSample | None = None,
    *,
    position: OnePerSample | None = None,
    log_probability: bool = True,
    output: str | None = None,
    padding: int | None = None,
) -> Target:
    """Return the Target of the token that a language model gives at a position, in batches with padding, too.

    model: a model with logits (N, T, vocabulary), or `differentiate(model)`. inputs: ids (N, T), or {input: array}
        with a mask.
    token: its id, one for all samples or one for each. Default: the token with the highest logit.
    position: the column whose logits are explained; a decoder predicts there the token of the next column, a masked
        language model the token of this one. Negative positions count from the last token that is no padding.
        Default: the last one. One for all samples, or one for each.
    log_probability: explain the logarithm of the token's probability; False explains its logit.
    output: the name of the logits. Default: the first output (N, T, vocabulary).
    padding: the id of padding, for a model without a mask among its inputs.
    Raises TargetError for a position that is padding or a token outside the vocabulary.
    """
    language = LanguageModel.read(model, inputs, output, padding)
    columns = language.positions(position)[:, None]
    if token is not None:
        columns = np.concatenate([columns, language.tokens(token)[:, None]], axis=1)
    if not log_probability:
        return Target(language.output, position=columns)
    return Target(language.output, position=columns, after=LOGARITHM, axis=-1)
