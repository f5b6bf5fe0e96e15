"""Whether the samples of a batch may be computed apart: by the structure of the graph, else by a trial."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyzer.backends.batching.arranging import decide
from analyzer.backends.batching.planning import Call
from analyzer.graph.samples.arrangement import INDEPENDENT

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Arrays


def independent(fn: Differentiable, call: Call, feeds: Arrays) -> bool:
    """Whether the samples, along axis 0 of the inputs, depend on none of the others."""
    if fn.arrangement is not None:
        return fn.arrangement.samples == INDEPENDENT
    names = call.names if call.seed is None else call.seed.outputs
    found = decide(fn, feeds, names)
    return found.samples == INDEPENDENT and not (found.wrapped or found.alone or found.tried) and not (
        found.spans.keys() & set(feeds)
    )  # fmt: skip
