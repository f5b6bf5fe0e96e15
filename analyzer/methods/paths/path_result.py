"""What every method along a path gives: attributions, how far their sum is from what it must be, and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.graph.channel_axis import channel_axes, input_channel_axis
from analyzer.graph.precision import epsilon
from analyzer.methods.arranged import Arranged
from analyzer.methods.completeness import Completeness, measure, sample_sums
from analyzer.methods.full_gradient.result import chosen_input
from analyzer.methods.paths.fixed_target import Held
from analyzer.types import Arrays, Inputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PathAttributions(Arranged):
    """attributions: like the inputs, in the units of the output; {input name: array} for several.

    completeness: of their sum against the difference of the outputs at the path's ends. evaluations: gradients
    computed, counted per sample. output (N,): the explained one. target (N,): its classes, or None.
    channel_axes: {input name: axis}, which a picture sums over.
    """

    attributions: Any
    completeness: Completeness
    evaluations: int
    output: np.ndarray
    target: np.ndarray | None
    channel_axes: Mapping[str, int]

    @property
    def delta(self) -> np.ndarray:
        """(N,): the sum of the attributions less the difference of the outputs at the path's ends."""
        short: np.ndarray = self.completeness.total - self.completeness.output
        return short

    def attributions_at(self, name: str) -> np.ndarray:
        """The attributions of one input, or tensor, by its name."""
        found: np.ndarray = (
            self.attributions[name] if isinstance(self.attributions, Mapping) else self.attributions
        )
        return found

    def plot(
        self, inputs: Any = None, *, of: str | None = None, features: Sequence[str] | None = None
    ) -> Figure:
        """The attributions, summed over channels, as `FullGrad.plot` draws its complete map.

        Features of a table whose attributions are means have their standard errors beside their bars.
        """
        from analyzer.figures import PIXELS, Look, plot_input

        name = chosen_input(self.channel_axes, of)
        values = self.first(name, self.attributions_at(name))
        drawn = self.first(name, inputs.get(name) if isinstance(inputs, Mapping) else inputs)
        look = Look(
            title=name,
            unit="units of the output, per element",
            signed=True,
            smoothing=PIXELS,
            features=features,
            errors=self._errors_at(name) if values.ndim == 2 else None,
        )
        summed = values.sum(axis=self.channel_axes[name]) if values.ndim > 2 else values
        return plot_input(summed, drawn, look, table=values.ndim == 2)

    def _errors_at(self, name: str) -> np.ndarray | None:
        """The standard errors of results that are means, over baselines or over draws."""
        errors = getattr(self, "standard_error", None)
        return self.first(name, errors[name] if isinstance(errors, Mapping) else errors)  # type: ignore[no-any-return]


def path_attributions(
    held: Held, inputs: Inputs, totals: Arrays, difference: np.ndarray, evaluations: int
) -> PathAttributions:
    """The result of sums in double precision {input name: (N, *features)}. difference (N,): what they must sum to."""
    known = channel_axes(held.fn.graph)
    typed = {name: total.astype(held.feeds[name].dtype) for name, total in totals.items()}
    return PathAttributions(
        attributions=like(inputs, typed),
        completeness=completeness_of(difference, typed, rounding_of(held.output, difference)),
        evaluations=evaluations,
        output=held.output,
        target=held.chosen,
        channel_axes={name: input_channel_axis(held.fn.graph, name, known) for name in totals},
    )


def like(inputs: Inputs, arrays: Arrays) -> Any:
    """Results in the form of the inputs: a dict for a dict, an array for an array."""
    return arrays if isinstance(inputs, Mapping) else next(iter(arrays.values()))


def rounding_of(output: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """The rounding of the difference between outputs at the ends of a path, (N,), in double precision.

    output (N,): at its end, in the precision of the model. difference (N,): of it and that at the start.
    """
    ends = output.astype(np.float64)
    found: np.ndarray = epsilon(output.dtype) * np.maximum(np.abs(ends), np.abs(ends - difference))
    return found


def completeness_of(difference: np.ndarray, totals: Arrays, rounding: np.ndarray) -> Completeness:
    """How far the sums over all inputs are from the difference, (N,). rounding: of the difference."""
    total = np.sum([sample_sums(array) for array in totals.values()], axis=0)
    absolute = np.sum([sample_sums(np.abs(array)) for array in totals.values()], axis=0)
    return measure(difference, total, absolute, rounding)
