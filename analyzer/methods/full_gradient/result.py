"""What FullGrad gives: the maps, the terms, every tensor's and every layer's share, as arrays, table, chart or JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.deprecation import renamed
from analyzer.errors import AnalysisError
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.graph.samples.view import unstated
from analyzer.methods.completeness import EXACT, Completeness, rounding_remark
from analyzer.methods.result import OUTPUT_UNIT, Attribution
from analyzer.types import Arrays

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure
    from rich.table import Table

    from analyzer.figures import Bar
    from analyzer.figures.plots import Look

MOST_LISTED = 3
"""Samples whose numbers a short text has."""


@dataclass(frozen=True)
class Contribution:
    """One tensor's share of the output. total: (N,), the signed sum of its bias term, in the output's units.

    kind: "explicit" for a bias that the layer adds, "implicit" for the residual of a non-linear node. layer: the module
    path or Keras layer that the exporter recorded, else the node's name. placed: whether the term stands in the map.
    """

    tensor: str
    node: str
    op_type: str
    kind: str
    layer: str
    total: np.ndarray
    placed: bool = False


@dataclass(frozen=True)
class Layer:
    """The contributions of one layer, and their sum, (N,)."""

    name: str
    contributions: tuple[Contribution, ...]

    def __repr__(self) -> str:
        total, count = self.total, len(self.contributions)
        sums = ", ".join(f"{value:.4g}" for value in total[:MOST_LISTED])
        rest = f" and {len(total) - MOST_LISTED} more" if len(total) > MOST_LISTED else ""
        return f"Layer({self.name!r}, {self.kind}, {count} term{'s' * (count != 1)}, total {sums}{rest})"

    @property
    def total(self) -> np.ndarray:
        """(N,), the signed sum of the layer's terms."""
        total: np.ndarray = np.sum([one.total for one in self.contributions], axis=0)
        return total

    @property
    def kind(self) -> str:
        """The kind of its terms; "explicit" where any is."""
        return min(one.kind for one in self.contributions)

    @cached_property
    def by_kind(self) -> Arrays:
        """The signed sums, (N,), of its terms of each kind, explicit first."""
        kinds = sorted({one.kind for one in self.contributions})
        return {
            kind: np.sum([one.total for one in self.contributions if one.kind == kind], axis=0)
            for kind in kinds
        }


def layers_of(contributions: Sequence[Contribution]) -> tuple[Layer, ...]:
    """Contributions grouped by layer, in the order in which layers first occur."""
    by_layer: dict[str, list[Contribution]] = {}
    for one in contributions:
        by_layer.setdefault(one.layer, []).append(one)
    return tuple(Layer(name, tuple(found)) for name, found in by_layer.items())


def layer_bars(input_totals: Mapping[str, np.ndarray], layers: Sequence[Layer], sample: int) -> list[Bar]:
    """What makes one sample's output: a bar per input, then one per layer and kind, in network order."""
    from analyzer.figures import Bar

    many = len(input_totals) > 1
    inputs = [
        Bar(f"{name} × gradient" if many else "input × gradient", float(total[sample]), "input")
        for name, total in input_totals.items()
    ]
    return inputs + [
        Bar(layer.name, float(total[sample]), kind)
        for layer in layers
        for kind, total in layer.by_kind.items()
    ]


class Terms(Mapping[str, np.ndarray]):
    """The bias terms by tensor, (∂f/∂y) ⊙ r shaped like the tensor: computed, all at once, when one is asked for."""

    def __init__(self, names: tuple[str, ...], compute: Callable[[], Arrays] | None) -> None:
        self._names = names
        self._compute = compute

    @cached_property
    def _arrays(self) -> Arrays:
        if self._compute is None:
            raise AnalysisError(
                "the bias terms were not computed before the result was saved. Fix: read its bias_terms before you "
                "save it, or explain the inputs again"
            )
        return self._compute() if self._names else {}

    @property
    def computed(self) -> Arrays | None:
        """The terms, where they were asked for; else None."""
        return self.__dict__.get("_arrays")

    def archived(self) -> tuple[tuple[str, ...], Arrays | None]:
        """Return what is kept of the terms in a file: their names, and the arrays where they were computed."""
        return self._names, self.computed

    @classmethod
    def from_archive(cls, kept: tuple[tuple[str, ...], Arrays | None]) -> Terms:
        """Return terms without a model to compute them. kept: what `archived` returned."""
        names, arrays = kept
        found = cls(tuple(names), None)
        if arrays is not None:
            found.__dict__["_arrays"] = arrays
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        return Terms.from_archive, (self.archived(),)

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._names:
            raise KeyError(name)
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class FullGrad(Attribution):
    """The decomposition of the explained output, and its maps.

    attributions: the input term, inputs ⊙ ∂f/∂inputs, in the form of the inputs; `input_term` is the same.
    map: (N, *spatial), the published saliency map; (N, features) where the input has no spatial axes. Of several inputs
        {input: map}, each with its own axes; a layer that lies over several counts in the map of each.
    complete_map: like it, signed: every term that has a position, spread over the pixels of that position. An element
        that lies over several inputs, as of a difference, counts in equal parts for each. Its sum, over all inputs, and
        `unplaced_total` (N,) make the output; `unplaced` names the tensors of the latter, such as a last Dense layer's.
    input_totals: {input: the sums (N,) of the input term}.
    bias_terms: {tensor: (∂f/∂y) ⊙ r}, shaped like the tensor, computed when they are asked for.
    contributions: their sums, in graph order. layers: grouped by layer. All are in units of the output.
    terms: "all" or "explicit".
    """

    complete_map: Any
    input_totals: Arrays
    bias_terms: Mapping[str, np.ndarray]
    contributions: tuple[Contribution, ...]
    completeness: Completeness
    terms: str
    unplaced: tuple[str, ...]
    unplaced_total: np.ndarray

    @property
    def input_term(self) -> Any:
        """The input term, inputs ⊙ ∂f/∂inputs, in the form of the inputs."""
        return self.attributions

    @property
    def detail(self) -> str:
        """Which terms."""
        return f"{self.terms} terms"

    @cached_property
    def passed(self) -> tuple[bool | None, ...]:
        """For each sample, whether all terms sum to the output; None of explicit terms, which do not claim it."""
        exact = self.completeness.within(EXACT)
        return tuple(bool(fine) if self.terms == "all" else None for fine in exact)

    @property
    def remark(self) -> str:
        """What explicit terms leave out; of all terms, what a sum that fails means."""
        if self.terms != "all":
            return "the biases of the layers alone, as published"
        return rounding_remark(self.completeness) if False in self.passed else ""

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The contributions grouped by layer, in the order in which layers first occur."""
        return layers_of(self.contributions)

    def share(self, total: np.ndarray) -> np.ndarray:
        """A sum (N,) as a share of the output; NaN where the output is 0."""
        output = self.completeness.output
        with np.errstate(divide="ignore", invalid="ignore"):
            found: np.ndarray = np.where(output == 0, np.nan, total / output)
        return found

    def largest(self, sample: int = 0) -> tuple[Contribution, ...]:
        """The contributions by the size of their share of one sample's output, largest first."""
        return tuple(sorted(self.contributions, key=lambda one: -abs(float(one.total[sample]))))

    def table(self, sample: int = 0, most: int = 20) -> Table:
        """The largest contributions to one sample's output, for the terminal."""
        from rich.table import Table

        from analyzer.figures import share_text

        output = float(self.completeness.output[sample])
        table = Table(box=None, title=f"output {output:.4g}", title_justify="left")
        for name in ("layer", "tensor", "op", "kind"):
            table.add_column(name, overflow="fold")
        table.add_column("sum", justify="right")
        table.add_column("share", justify="right")
        for row in self._rows(sample, most):
            table.add_row(
                *row["text"], f"{row['sum']:+.4g}".replace("-", "−"), share_text(row["sum"], output)
            )
        return table

    def _rows(self, sample: int, most: int) -> list[dict[str, Any]]:
        from analyzer.figures import short_names

        largest = self.largest(sample)
        names = short_names([one.layer for one in largest])
        inputs = [
            (("input × gradient", name, "", "input"), total) for name, total in self.input_totals.items()
        ]
        found = [
            ((name, c.tensor, c.op_type, c.kind), c.total) for name, c in zip(names, largest, strict=True)
        ]
        rows = [*inputs, *found[:most]]
        if found[most:]:
            rest = np.sum([total for _, total in found[most:]], axis=0)
            rows.append(((f"the other {len(found) - most}", "", "", ""), rest))
        return [{"text": text, "sum": float(total[sample])} for text, total in rows]

    def bar_chart(self, sample: int = 0, most: int = 24) -> Figure:
        """What each layer gives to one sample's output, by kind, in network order; small ones as one bar."""
        from analyzer.figures import contribution_chart

        output = float(self.completeness.output[sample])
        bars = layer_bars(self.input_totals, self.layers, sample)
        return contribution_chart(bars, title=f"output {output:.4g}", most=most, output=output)

    def drawn(self, name: str, complete: bool = False, **how: Any) -> tuple[np.ndarray, Look]:
        """Return the saliency map, or the complete map. The latter is drawn smoothed, which keeps its sum: single
        pixels of opposite signs cancel to the eye, too.
        """
        from analyzer.figures import REGIONS

        values, look = super().drawn(name, **how)
        if not complete:
            return values, look
        values = self.by_tensor(self.complete_map)[name]
        return values, replace(look, unit=OUTPUT_UNIT, signed=True, smoothing=REGIONS)

    def is_table(self, name: str, inputs: np.ndarray | None) -> bool:
        """Return whether a map of one axis is of a table's features, not of the steps of a signal."""
        return bool(self.first(name, self.attributions_at(name)).ndim == 2)

    @renamed(inputs="images")
    def plot(self, images: Any = None, *, complete: bool = False, **looks: Any) -> Figure:
        """Draw the saliency map; complete=True draws the signed complete map.

        images, looks: the arguments of `Attribution.plot`.
        """
        from analyzer.methods.drawing import plot

        return plot(self, images, complete=complete, **looks)

    def _document(self) -> dict[str, Any]:
        return {
            **super()._document(),
            "terms": self.terms,
            "input_terms": {name: total.tolist() for name, total in self.input_totals.items()},
            "unplaced": list(self.unplaced),
            "unplaced_total": self.unplaced_total.tolist(),
            "contributions": self._records(),
        }

    def _records(self) -> list[dict[str, Any]]:
        names = ("layer", "tensor", "node", "op_type", "kind", "placed")
        return [
            {**{name: getattr(one, name) for name in names}, "sum": one.total.tolist()}
            for one in self.contributions
        ]

    def to_pandas(self) -> pandas.DataFrame:
        """A row per sample and tensor: layer, tensor, node, op type, kind, placed, sum, share. Needs pandas."""
        import pandas

        rows = [
            {
                **record,
                "sample": sample,
                "sum": float(one.total[sample]),
                "share": self.share(one.total)[sample],
            }
            for record, one in zip(self._records(), self.contributions, strict=True)
            for sample in range(len(one.total))
        ]
        return pandas.DataFrame(rows)

    def restored(self, arrangement: Arrangement, single: str) -> FullGrad:
        """The result as the user's model has its arrays, its tensors by their names in the model."""
        terms = self.bias_terms
        named = Terms(
            tuple(unstated(name) for name in terms),
            lambda: {unstated(name): terms[name] for name in terms},
        )
        shares = tuple(replace(one, tensor=unstated(one.tensor)) for one in self.contributions)
        unplaced = tuple(unstated(name) for name in self.unplaced)
        own = replace(self, bias_terms=named, contributions=shares, unplaced=unplaced)
        return Attribution.restored(own, arrangement, single)

    def with_single_input(self) -> FullGrad:
        """The input term as an array, where the inputs were one."""
        (term,) = self.input_term.values()
        return replace(self, attributions=term)
