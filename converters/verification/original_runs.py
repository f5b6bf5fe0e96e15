"""Run an original on an example and on variants of it, and collect what the user must know of both.

Reads a Reference and an example; yields test inputs with the original's outputs. Variants that the original refuses
are left out, with a note. Raises ConversionError where it fails on the example, VerificationFailed where it is random.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from converters.errors import VerificationFailed, one_line
from converters.types import NamedArrays
from converters.verification.reference import Reference, relative_l2, run_original
from converters.verification.variants import FreeAxes, variants


class OriginalRuns:
    """The test inputs, the original's outputs on them, and what the user must know of both."""

    def __init__(
        self,
        reference: Reference,
        example: NamedArrays,
        free: frozenset[str],
        count: int,
        seed: int,
        free_axes: FreeAxes,
    ) -> None:
        self.reference, self.example, self.free = reference, example, free
        self.count, self.seed, self.free_axes = count, seed, free_axes
        self.compared = 0
        self.at = "the example"
        self._failures: list[Exception] = []
        self._only_sizes = 0
        self._dropped: dict[str, None] = {}

    def runs(self) -> Iterator[tuple[NamedArrays, Sequence[np.ndarray]]]:
        """Yield each test input with the original's outputs on it."""
        yield self.example, run_original(self.reference, self.example)
        for index in range(self.count):
            found = self._variant(index)
            if found is not None:
                self.compared += 1
                self.at = f"test input {index + 1} of {self.count}, made from the example"
                yield found

    def _variant(self, index: int) -> tuple[NamedArrays, Sequence[np.ndarray]] | None:
        """Return the first attempt at a variant that the original takes."""
        attempts = variants(self.example, self.free, index, self.reference.batch, self.seed, self.free_axes)
        failure: Exception | None = None
        for number, given in enumerate(attempts):
            try:
                outputs = self.reference.run(given)
            except Exception as error:  # the original is the user's code
                failure = failure or error
                continue
            if failure is not None and number == len(attempts) - 1:
                self._only_sizes += 1
                self._failures.append(failure)
            return given, outputs
        assert failure is not None
        self._failures.append(failure)
        return None

    def with_batch_axis(self, name: str, truth: np.ndarray, value: np.ndarray) -> np.ndarray:
        """Return the original's output; one that lost the axis of a single sample gets it back."""
        lost = value.ndim > truth.ndim and value.shape[0] == 1
        if not lost or [d for d in value.shape if d != 1] != [d for d in truth.shape if d != 1]:
            return truth
        self._dropped[name] = None
        return truth.reshape(value.shape)

    def refuse_random(self, given: NamedArrays, index: int, allowed: float) -> None:
        """Raise VerificationFailed where two runs of the original on the same input differ."""
        once, again = (run_original(self.reference, given)[index] for _ in range(2))
        apart = relative_l2(again, once)
        if apart > allowed:
            raise VerificationFailed(
                f"the original is random: two runs on the same input differ by {apart:.2g} (relative L2). Fix: switch "
                "dropout and noise off in inference, as in F.dropout(x, p, training=self.training) or "
                "layer(x, training=False)"
            )

    def notes(self) -> tuple[str, ...]:
        """Return what the verification leaves open."""
        found = []
        if self._failures:
            why = f"{type(self._failures[0]).__name__}: {one_line(self._failures[0], 120)}"
            left_out = len(self._failures) - self._only_sizes
            if left_out:
                found.append(
                    f"the original fails on {left_out} of {self.count} test inputs made from the example ({why}); "
                    "the conversion is verified on the others"
                )
            if self._only_sizes:
                found.append(
                    f"the original fails on test inputs with other sizes or rows than the example ({why}); "
                    "the conversion is verified on the example's sizes alone"
                )
        if self._dropped:
            found.append(
                f"the original drops the batch axis of {', '.join(self._dropped)} for one sample; the graph keeps it"
            )
        return tuple(found)
