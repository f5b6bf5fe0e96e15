"""A map over an input, and how it is drawn: what every method that adds up to nothing gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.methods.arranged import Arranged
from analyzer.methods.full_gradient.result import chosen_input

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class SaliencyMap(Arranged):
    """map: (N, *spatial), in no unit, ≥ 0 where it is not `signed`; {input name: map} for several inputs.

    output: (N,), the explained one. target: (N,) classes, or None.
    """

    map: Any
    output: np.ndarray
    target: np.ndarray | None
    signed: bool = False

    def plot(
        self, inputs: Any = None, *, of: str | None = None, features: Sequence[str] | None = None
    ) -> Figure:
        """The map, as `FullGrad.plot` draws it. A map of one axis is a table's where no input tells otherwise."""
        from analyzer.figures import PIXELS, Look, plot_input

        maps = self.map if isinstance(self.map, Mapping) else {"": self.map}
        name = chosen_input(maps, of)
        drawn = inputs.get(name) if isinstance(inputs, Mapping) else inputs
        if self.arrangement is not None:
            drawn = self.first(
                name or next(iter((*self.arrangement.wrapped, *self.arrangement.spans)), ""), drawn
            )
        look = Look(
            title=name,
            unit="saliency, without unit",
            signed=self.signed,
            smoothing=PIXELS if self.signed else 0.0,
            features=features,
        )
        table = maps[name].ndim == 2 and (drawn is None or drawn.ndim == 2)
        return plot_input(maps[name], drawn, look, table=table)
