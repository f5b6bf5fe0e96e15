"""Run a decoder without a cache: its inputs for token ids, its logits, and greedy generation on the ONNX graph.

From a Differentiable and token ids to logits and generated ids. Refuses models whose logits at a token depend on later
tokens, and sequences that are longer than the model takes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyzer.backends import Differentiable
from analyzer.errors import AnalysisError, InputError
from analyzer.graph.token_inputs import TokenInputs, position_limit, token_inputs
from analyzer.targets.language import LanguageModel
from analyzer.texts.load import positions_of
from analyzer.types import Arrays, Progress

# Logits of one token may differ by rounding where the tokens after it are others.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Decoder:
    """fn: the model. inputs: what its inputs are. output: the name of its logits. length: the tokens that it takes.

    fixed: whether it takes exactly so many. vocabulary: the number of logits of a token.
    """

    fn: Differentiable
    inputs: TokenInputs
    output: str
    length: int | None
    fixed: bool
    vocabulary: int

    @classmethod
    def of(cls, fn: Differentiable, ids: np.ndarray, output: str | None, limit: int | None) -> Decoder:
        """Read a model. ids (T,): a sequence that it takes. Raises InputError or TargetError for other models."""
        known = token_inputs(fn.graph)
        if known is None:
            raise InputError(
                f"expected a decoder whose inputs (N, T) are token ids, a mask or positions, found "
                f"{', '.join(fn.graph.inputs)}. Fix: convert it with these inputs alone"
            )
        shape = fn.graph.tensors[known.ids].shape
        fixed = shape[1] if shape is not None and isinstance(shape[1], int) else None
        limits = [one for one in (limit, position_limit(fn.graph)) if one is not None]
        length = fixed if fixed is not None else min(limits, default=None)
        made = cls(fn, known, output or "", length, fixed is not None, 0)
        language = LanguageModel.read(fn, made.feeds(ids), output, None)
        vocabulary = language.vocabulary
        if vocabulary is None:
            vocabulary = made._values(ids, language.output).shape[-1]
        return replace(made, output=language.output, vocabulary=vocabulary)

    def feeds(self, ids: np.ndarray, rows: int = 1) -> Arrays:
        """Return the inputs of the model for ids (T,), the same in every row; a fixed length is filled with padding.

        Raises InputError where the ids are more than the model takes.
        """
        count = len(ids)
        if self.length is not None and count > self.length:
            raise InputError(
                f"expected at most {self.length} tokens, prompt and generated ones together, got {count}. Fix: give a "
                "shorter prompt, or a smaller max_new_tokens (--generate)"
            )
        length = self.length if self.fixed and self.length is not None else count
        tokens, mask = np.zeros(length, np.int64), np.zeros(length, np.int64)
        tokens[:count], mask[:count] = ids, 1
        values = {
            "ids": tokens,
            "mask": mask,
            "types": np.zeros(length),
            "positions": positions_of(mask[None])[0],
        }
        return {
            name: np.tile(values[kind], (rows, 1)).astype(self.fn.graph.tensors[name].dtype)
            for kind, name in self.inputs
        }

    def logits(self, ids: np.ndarray) -> np.ndarray:
        """Return the logits of every token, (T, vocabulary)."""
        return self._values(ids, self.output)[0, : len(ids)]

    def _values(self, ids: np.ndarray, output: str) -> np.ndarray:
        return self.fn.forward(self.feeds(ids), [output])[output]

    def refuse_look_ahead(self, ids: np.ndarray) -> None:
        """Raise AnalysisError where logits depend on a later token, as those of an encoder do."""
        if len(ids) < 2:
            return
        other = ids.copy()
        other[-1] = (other[-1] + 1) % self.vocabulary
        before, after = self.logits(ids)[:-1], self.logits(other)[:-1]
        if np.abs(before - after).max() > _ROUNDING * max(1.0, float(np.abs(before).max())):
            raise AnalysisError(
                "expected a decoder, whose logits depend on earlier tokens alone; these depend on later ones, too. "
                "Fix: give a decoder, or explain the model's own output with integrated_gradients"
            )

    def generate(
        self, ids: np.ndarray, most: int, stops: Collection[int], progress: Progress | None = None
    ) -> np.ndarray:
        """Return the tokens of the highest logit, one after the other, (G,); after one of `stops` none follows."""
        quiet = replace(self, fn=replace(self.fn, verify=False))
        found: list[int] = []
        whole = np.asarray(ids, np.int64)
        for step in range(most):
            found.append(int(quiet.logits(whole)[-1].argmax()))
            if progress is not None:
                progress(step + 1, most)
            if found[-1] in stops:
                break
            whole = np.append(whole, found[-1])
        return np.asarray(found, np.int64)


def checked_ids(ids: object, vocabulary: int, what: str) -> np.ndarray:
    """Return token ids (T,) of a sequence. Raises InputError for others."""
    array = np.asarray(ids)
    array = array[0] if array.ndim == 2 and len(array) == 1 else array
    if array.ndim != 1 or array.dtype.kind not in "iu" or not array.size:
        raise InputError(
            f"{what}: expected a text or token ids (T,) of one sequence, got shape {array.shape} of {array.dtype}. "
            "Fix: give one sequence a call"
        )
    beyond = array[(array < 0) | (array >= vocabulary)] if vocabulary else array[array < 0]
    if beyond.size:
        raise InputError(
            f"{what}: token {int(beyond[0])} is outside the vocabulary of {vocabulary} tokens. Fix: give ids of "
            "this model"
        )
    return array.astype(np.int64)


def stops_of(*stated: object) -> frozenset[int]:
    """Return the tokens that end a text, as configurations state them: a number or a list of numbers."""
    found: set[int] = set()
    for one in stated:
        values: Sequence[object] = one if isinstance(one, list) else [one]
        found |= {value for value in values if isinstance(value, int) and not isinstance(value, bool)}
    return frozenset(found)
