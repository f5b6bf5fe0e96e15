"""The original's own backward pass as a side of a check: is it the derivative of its forward pass?

Explanations are of the exported function. An export keeps no custom backward pass (surrogate gradients, gradient
reversal), `detach`, `no_grad` or hook. converters/sources/torch_backward.py and own_stops.py find those that make a
difference. A network without any has no rows here: its backward pass is the derivative by construction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.checks.comparison import row_of
from analyzer.checks.read.reading import weights_of
from analyzer.errors import AnalysisError, UnsupportedOp
from analyzer.graph.graph import Graph
from analyzer.target.target import Target
from analyzer.types import Arrays, Row
from converters.errors import ConversionError, one_line
from converters.model import Model, PyTorchSource
from converters.sources.torch_backward import Backward, CustomPassage, own_backward

AUTOGRAD = "autograd"
_MOST_NAMED = 4


@dataclass(frozen=True)
class OwnBackward:
    """The original's backward pass on the inputs of a check. found: None where it cannot differ; reason: why it is not
    compared, empty where it is.
    """

    graph: Graph
    found: Backward | None
    reason: str

    @property
    def sides(self) -> tuple[str, ...]:
        """The name of the side, where it has rows."""
        return (AUTOGRAD,) if self.found else ()

    @property
    def skipped(self) -> Mapping[str, str]:
        """The name of the side with the reason, where it is not compared."""
        return {AUTOGRAD: self.reason} if self.reason else {}

    def rows(self) -> list[Row]:
        """Compare the derivative of the exported function with the original's own gradient."""
        if self.found is None:
            return []
        sides, own, allowed = ("source", AUTOGRAD), self.found.own, self.found.tolerance
        return [
            row_of("input gradient", name, sides, array, own[name], allowed, self.graph)
            for name, array in self.found.exported.items()
        ]

    @contextlib.contextmanager
    def explaining(self) -> Iterator[None]:
        """Add the original's own backward pass to the message of a gradient that is refused inside."""
        try:
            yield
        except UnsupportedOp as error:
            if not self:
                raise
            raise UnsupportedOp(f"{str(error).rstrip('.')}. The original: {self}.") from error

    def __bool__(self) -> bool:
        return self.found is not None and bool(self.found.places)

    def __str__(self) -> str:
        if self.found is None or not self.found.places:
            return ""
        named = "; ".join(self._named(place) for place in self.found.places[:_MOST_NAMED])
        more = len(self.found.places) - _MOST_NAMED
        return (
            f"{named}{f' and {more} more' if more > 0 else ''}: the original's backward pass is not the derivative of "
            "its forward pass; no export keeps it, and explanations are of the exported function"
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the nodes at fault: in the graph, or else in the exported program."""
        places = self.found.places if self.found else ()
        computed = self.graph.producer
        return tuple(computed[n].name if n in computed else n for place in places for n in place.nodes)

    def _named(self, place: CustomPassage) -> str:
        nodes = [self._node(*pair) for pair in place.nodes.items()]
        more = f" and {len(nodes) - _MOST_NAMED} more" if len(nodes) > _MOST_NAMED else ""
        return f"{place}" + (f", node {', '.join(nodes[:_MOST_NAMED])}{more}" if nodes else "")

    def _node(self, name: str, read: str) -> str:
        """The node of the graph that computes a tensor of the program; else the program's own, and what it reads."""
        node = self.graph.producer.get(name)
        return f"{name!r} (reads {read!r})" if node is None else f"{node.op_type} {node.name!r}"


def own_backward_of(
    model: Model,
    graph: Graph,
    feeds: Arrays,
    target: Target,
    wrt: Sequence[str],
    tolerance: float,
    backends: Sequence[str],
) -> OwnBackward:
    """Run the original's own backward pass, where the source is checked.

    target: as it was fixed. wrt: the attributed tensors. backends: those of the check.
    """
    source = model.source
    if source is None or "source" not in backends:
        return OwnBackward(graph, None, "")
    weights = {name: np.asarray(array) for name, array in weights_of(target).items()}
    try:
        if isinstance(source, PyTorchSource):
            return OwnBackward(graph, own_backward(source, feeds, weights, wrt, tolerance), "")
        from analyzer.checks.read.own_stops import own_backward as with_stops

        return OwnBackward(graph, with_stops(source, feeds, weights, wrt, tolerance), "")
    except (ConversionError, AnalysisError) as error:
        return OwnBackward(graph, None, one_line(error))
