"""Read the inputs and the logits of a language model: which columns are tokens, and where a position lies.

From a model and inputs to a LanguageModel: the name of its logits (N, T, vocabulary), the ids (N, T) and which of them
are no padding. Refuses outputs of another shape, positions that are padding, and ids outside the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.backends import Differentiable, ModelLike, differentiate
from analyzer.errors import InputError, TargetError
from analyzer.graph.token_inputs import token_inputs
from analyzer.types import Inputs

OnePerSample = int | Sequence[int] | np.ndarray


@dataclass(frozen=True)
class LanguageModel:
    """output: the name of the logits. ids (N, T). kept (N, T): whether a column is a token, not padding.

    vocabulary: the number of logits of a position, None where the model leaves it open.
    """

    output: str
    ids: np.ndarray
    kept: np.ndarray
    vocabulary: int | None

    @classmethod
    def read(
        cls, model: Differentiable | ModelLike, inputs: Inputs, output: str | None, padding: int | None
    ) -> LanguageModel:
        """Read a model and its inputs. padding: the id that fills rows up, where no input is a mask."""
        fn = differentiate(model, example=inputs)
        feeds = fn.check_inputs(inputs)
        known = token_inputs(fn.graph)
        if known is None:
            raise InputError(
                f"expected inputs (N, T) of token ids, and a mask, types or positions besides, found "
                f"{', '.join(fn.graph.inputs)}. Fix: state the target yourself, such as Target(position=(2, 17))"
            )
        ids = feeds[known.ids]
        if known.mask is not None:
            kept = feeds[known.mask] != 0
        else:
            kept = np.ones(ids.shape, bool) if padding is None else ids != padding
        empty = np.flatnonzero(~kept.any(axis=1))
        if len(empty):
            raise InputError(
                f"sample {empty[0]} holds padding alone. Fix: give each sample at least one token"
            )
        name = output or _logits(fn, ids.shape[1])
        y = fn.graph.tensors.get(name)
        if y is None or not y.is_float or y.shape is None or len(y.shape) != 3:
            raise TargetError(
                f"expected logits (N, T, vocabulary) as the output, got {name!r} "
                f"{None if y is None else y.shape}. Fix: give output=, one of {', '.join(fn.graph.outputs)}"
            )
        size = y.shape[2]
        return cls(name, ids, kept, size if isinstance(size, int) else None)

    @property
    def samples(self) -> int:
        """The number of sequences, N."""
        return len(self.ids)

    def positions(self, position: OnePerSample | None) -> np.ndarray:
        """Return a column of each sample, (N,). Negative positions count from the last token, None is the last.

        Raises TargetError for a column that does not exist or is padding.
        """
        wanted = self._each(-1 if position is None else position, "position")
        found = np.empty(self.samples, np.int64)
        for sample, one in enumerate(wanted):
            columns = np.flatnonzero(self.kept[sample])
            known = one in columns if one >= 0 else -one <= len(columns)
            if not known:
                raise TargetError(
                    f"position={one}: sample {sample} has {len(columns)} tokens, in the columns {columns[0]} to "
                    f"{columns[-1]}. Fix: give one of these, or a negative position, which counts from the last token"
                )
            found[sample] = one if one >= 0 else columns[one]
        return found

    def tokens(self, token: OnePerSample) -> np.ndarray:
        """Return a token id of each sample, (N,). Raises TargetError for one outside the vocabulary."""
        found = self._each(token, "token")
        beyond = [one for one in found if one < 0 or (self.vocabulary is not None and one >= self.vocabulary)]
        if beyond:
            raise TargetError(
                f"token={beyond[0]}: expected an id from 0 to {(self.vocabulary or 0) - 1}. Fix: give the id of a "
                "token of this model"
            )
        return found

    def _each(self, value: OnePerSample, what: str) -> np.ndarray:
        array = np.asarray(value)
        if array.dtype.kind not in "iu" or array.shape not in ((), (self.samples,)):
            raise TargetError(
                f"{what}: expected an int, or one for each of {self.samples} samples, got {value!r}. Fix: give ints"
            )
        return np.broadcast_to(array, (self.samples,)).astype(np.int64)


def _logits(fn: Differentiable, length: int) -> str:
    """The first float output (N, T, vocabulary); the default output where there is none."""
    for name in fn.graph.outputs:
        y = fn.graph.tensors[name]
        axes = y.shape if y.is_float and y.shape is not None else ()
        if len(axes) == 3 and (axes[1] == length or not isinstance(axes[1], int)):
            return name
    return fn.graph.default_output
