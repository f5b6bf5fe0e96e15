"""A model with the Softmax that a target asks for, appended to an output.

From a Differentiable and a Target to a Differentiable whose graph has one more node, on the same backend, and the
Target of that node. A model is returned as it is where the target needs none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from analyzer.backends.at_sizes import keep_sizes
from analyzer.backends.caches import Cache
from analyzer.errors import TargetError
from analyzer.target.after import asked, at_activation, name_of, tensors_after, with_activations
from analyzer.target.before import at_logit
from analyzer.target.target import Target

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable

_MADE: Cache[Differentiable] = Cache("models with a Softmax appended")


def with_activation(fn: Differentiable, target: Target) -> tuple[Differentiable, Target]:
    """Return the model and the target with `before` and `after` carried out. Raises TargetError."""
    target = at_logit(asked(target), fn.graph)
    tensors = tensors_after(fn.graph, target)
    if not tensors:
        return fn, target
    if fn.arrangement is not None and not fn.arrangement.plain:
        raise TargetError(
            "after: expected the samples along the first axis of every input and output. Fix: give a model whose "
            "inputs and outputs have the samples first"
        )
    known = [one for one in tensors if name_of(*one) not in fn.graph.tensors]

    def made() -> Differentiable:
        graph = with_activations(fn.graph, known)
        found = replace(fn, engine=fn.engine.rebound(graph), caches={})
        # Share the open file and its results, so that nothing is compared twice.
        found.__dict__["file"] = fn.file
        keep_sizes(found)
        return found

    moved = at_activation(target, fn.graph)
    return (_MADE.get(fn, tuple(known), made), moved) if known else (fn, moved)
