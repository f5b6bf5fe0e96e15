"""Read the explained output of a call together with its explanation, in the same run of the model.

From a block of code that explains inputs to the values of the whole output at these inputs: the scores of all classes,
where a result holds that of the explained class alone. A run for other inputs, such as points of a path, is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import numpy as np

from analyzer.autodiff.request import Request, joined
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor
from analyzer.target.target import Seed

_PREFIX = "watched/"


@dataclass
class OutputWatch:
    """inputs: those that are explained. output, values, graph: the explained output, once it has been computed."""

    inputs: Mapping[str, np.ndarray]
    output: str | None = None
    values: np.ndarray | None = None
    graph: Graph | None = None

    def wants(self, feeds: Mapping[str, np.ndarray], seed: Seed) -> bool:
        """Return whether this run explains elements of one output at the inputs, whose values are not known yet."""
        if self.values is not None or seed.weights is not None or seed.more or seed.ranks is not None:
            return False
        return feeds.keys() == self.inputs.keys() and all(
            array is self.inputs[name] or np.array_equal(array, self.inputs[name])
            for name, array in feeds.items()
        )

    def take(self, arrays: dict[str, np.ndarray], output: str, graph: Graph) -> None:
        """Move the values of the output out of the results of a run."""
        self.values, self.output, self.graph = arrays.pop(_PREFIX + output), output, graph


_WATCH: ContextVar[OutputWatch | None] = ContextVar("watched output", default=None)


@contextmanager
def watched(inputs: Mapping[str, np.ndarray]) -> Iterator[OutputWatch]:
    """Within the block, the first run that explains these inputs also gives the values of the explained output."""
    found = OutputWatch(inputs)
    token = _WATCH.set(found)
    try:
        yield found
    finally:
        _WATCH.reset(token)


def watch_of(feeds: Mapping[str, np.ndarray], seed: Seed) -> OutputWatch | None:
    """Return the watch that wants the output of this run; None where there is none."""
    found = _WATCH.get()
    return found if found is not None and found.wants(feeds, seed) else None


def with_output(request: Request, output: str) -> Request:
    """Return the request with the values of an output among its results."""

    def emit(op: Builder, graph: Graph, gradients: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {_PREFIX + output: graph.tensors[output]}

    both = joined(request, Request((_PREFIX, output), (), emit))
    return replace(both, by_rank=request.by_rank, masked=request.masked)
