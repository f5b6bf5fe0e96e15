"""Find what makes a gradient NaN, and say it: the node whose derivative is not a number at the values that it reads.

From the results of a request to None, or to the error that names the node. A value may be infinite, as that of a mask;
a gradient may be, as that of a square root at 0. Neither may be NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyzer.autodiff.request import OUTPUT, gradient_name, masked, observe
from analyzer.autodiff.sweep import active_tensors, leading_tensors
from analyzer.backends.batching.micro_batches import run
from analyzer.backends.batching.planning import Call
from analyzer.errors import UndefinedResult
from analyzer.graph.graph import Node

if TYPE_CHECKING:
    from analyzer.backends.bound import Bound

_FIX = "Fix: explain inputs at which it is defined, or give the model an ε there, as in sqrt(x + 1e-12)"


def undefined(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """The results that hold NaN, but for plain values of tensors; the explained output where it is infinite."""
    return [
        name
        for name, array in arrays.items()
        if array.dtype.kind == "f"
        and not name.startswith("value/")
        and (np.isnan(array).any() or (name == OUTPUT and not np.isfinite(array).all()))
    ]


def undefined_error(bound: Bound, names: list[str]) -> UndefinedResult:
    """The error for results that are NaN."""
    found = cause(bound, names)
    told = f"a finite number to explain, found {found}" if OUTPUT in names else f"a finite gradient: {found}"
    return UndefinedResult(f"expected {told}. {_FIX}")


def cause(bound: Bound, names: Sequence[str]) -> str:
    """Return a phrase that names the results that are not finite, and the first node that computes NaN or infinity."""
    return _of_output(bound) if OUTPUT in names else _of_gradient(bound, names)


def _of_output(bound: Bound) -> str:
    fn, seed = bound.fn, bound.seed
    graph, values = fn.graph, fn.engine.forward(bound.feeds, list(fn.tensors))
    leading = graph.ancestors(seed.outputs)
    node = next((n for n in graph.nodes if any(o in leading and _lost(values[o]) for o in n.outputs)), None)
    where = "" if node is None else f": {node} is the first to compute one"
    return f"NaN or an infinity in {seed.output!r}{where}"


def _of_gradient(bound: Bound, names: Sequence[str]) -> str:
    fn, seed = bound.fn, bound.seed
    graph = fn.graph
    path = active_tensors(graph, fn.differentiable_inputs) & leading_tensors(graph, seed.outputs)
    wrt = [name for name in fn.tensors if name in path]
    found = run(fn, Call(masked(observe((), wrt)), (), seed), bound.feeds)
    lost = {name for name in wrt if _lost(found[gradient_name(name)])}
    node = next((n for n in reversed(graph.nodes) if _loses(n, lost)), None)
    if node is None:
        return (
            f"a product of the gradient of {seed.output!r} with a value is NaN ({names[0]}): the model holds "
            "an infinity where the gradient is not 0"
        )
    return f"the gradient of {seed.output!r} is not finite: {node} has no finite derivative at the values that it reads"


def _loses(node: Node, lost: set[str]) -> bool:
    return not lost.isdisjoint(node.reads) and lost.isdisjoint(node.outputs)


def _lost(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and not np.isfinite(array).all()
