"""Loop of a number of steps that is known only while it runs: its gradient goes from the last step to the first.

The backward pass runs the Loop again and stacks the states that each step begins with. A second Loop goes back over
them: a Scan does not take a sequence without elements, and there may be no step. Its body computes the tensors of the
step again, and holds the backward pass of the step. It carries the cotangents of the states,
and the sums of the gradients of what the body reads from around. FullGrad has no residual of a Loop, and refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.graph.program import body_of
from analyzer.ops.chain_rule import active_tensors, pull_back
from analyzer.ops.flow import body_graph, zeros
from analyzer.ops.registry import ExplicitRule, register

# The count and the condition come before the states.
_BEFORE = 2


@register
class Loop(ExplicitRule):
    inactive = frozenset({0, 1})
    several_outputs = True
    has_bodies = True

    def torch(torch: Any, *_: Any, **__: Any) -> Any:
        raise UnsupportedOp("a loop has no form by itself. Fix: run it by analyzer.backends.interpreter")

    tensorflow = torch

    def vjp(
        op: Builder,
        graph: Graph,
        node: Node,
        gradients: Sequence[Tensor | None],
        names: Sequence[str],
        **_: Any,
    ) -> Sequence[Tensor]:
        """The gradients at the tensors `names`: where the loop begins, and what its body reads."""
        body = body_graph(graph, node, "body")
        states = [body.tensors[name] for name in body.inputs[: _own(node)]][_BEFORE:]
        around = [graph.tensors[name] for name in names if name in node.captured]
        cotangents, sums = _backward(op, graph, node, body, states, gradients, around)
        found: dict[str, Tensor] = dict(zip((t.name for t in around), sums, strict=True))
        floats = [name for name, s in zip(node.inputs[_BEFORE:], states, strict=True) if s.is_float]
        for name, gradient in zip(floats, cotangents, strict=True):
            found[name] = op.Add(found[name], gradient) if name in found else gradient
        return [found[name] for name in names]

    def residual(op: Builder, graph: Graph, node: Node, names: Sequence[str]) -> Sequence[Tensor | None]:
        raise UnsupportedOp(
            f"{node}: FullGrad has no term of a loop whose number of steps is computed while running. Fix: use another "
            "method, such as integrated_gradients, or export the model with a fixed number of steps"
        )


def _own(node: Node) -> int:
    """The number of a body's own inputs; what it reads from around comes behind them."""
    return len(node.inputs)


def _backward(
    op: Builder,
    graph: Graph,
    node: Node,
    body: Graph,
    states: Sequence[Tensor],
    gradients: Sequence[Tensor | None],
    around: Sequence[Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Emit the second Loop. Return the gradients of the float states at the beginning, and of the tensors around."""
    count = len(states)
    floats = [index for index, state in enumerate(states) if state.is_float]
    last, saved = _saved(op, graph, node, body, states)
    collected = [(body.outputs[1 + i], g) for i, g in enumerate(gradients) if i >= count and g is not None]
    steps = op.Squeeze(op.Shape(saved[0], start=0, end=1), [0])
    inner, first = op.nested("Loop"), op.nested("Loop")
    turn, going = (
        Tensor(inner.fresh(name), np.dtype(kind), ()) for name, kind in (("turn", "i8"), ("go", "?"))
    )
    carried = [Tensor(inner.fresh("cotangent"), states[i].dtype, states[i].shape) for i in floats]
    sums = [Tensor(inner.fresh("sum"), t.dtype, t.shape) for t in around]
    # From the last step to the first.
    place = first.Sub(first.Sub(steps, 1), turn)
    step, *begun = (first.Gather(t, place, axis=0) for t in saved)
    found: dict[str, Tensor] = {}
    for name, cotangent in [
        *zip((body.outputs[1 + i] for i in floats), carried, strict=True),
        *((name, first.Gather(g, place, axis=0)) for name, g in collected),
    ]:
        found[name] = inner.Add(found[name], cotangent) if name in found else cotangent
    roots = [*(states[i].name for i in floats), *(t.name for t in around)]
    pull_back(body, inner, found, active_tensors(body, roots))
    results = [
        *(found.get(states[i].name) or zeros(inner, states[i]) for i in floats),
        *(
            inner.Add(total, found[t.name]) if t.name in found else total
            for t, total in zip(around, sums, strict=True)
        ),
    ]
    own = [body.tensors[name] for name in body.inputs[:_BEFORE]]
    stated = op.constant(np.ones((1,) * len(own[1].shape or ()), bool))
    stands = dict(
        zip(
            (t.name for t in (*own, *states)), (step.name, stated.name, *(t.name for t in begun)), strict=True
        )
    )
    back = body_of(body, inner, [inner.Identity(going), *results], stands, [turn, going, *carried, *sums])
    nodes = [*first.nodes, *back.node]
    del back.node[:]
    back.node.extend(nodes)
    begin = [g if (g := gradients[i]) is not None else zeros(op, last[i]) for i in floats]
    begin += [zeros(op, t) for t in around]
    names = [op.fresh("Loop") for _ in begin]
    yes = op.constant(np.asarray(True))
    op.write("Loop", [steps.name, yes.name, *(t.name for t in begin)], names, name=names[0], body=back)
    ends = [replace(t, name=name, constant=None) for t, name in zip(begin, names, strict=True)]
    return ends[: len(floats)], ends[len(floats) :]


def _saved(
    op: Builder, graph: Graph, node: Node, body: Graph, states: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Run the loop again. Return its last states, and the number and the states of every step, stacked."""
    inner = op.nested("Loop")
    turn, going = (body.tensors[name] for name in body.inputs[:_BEFORE])
    following = [body.tensors[name] for name in body.outputs[: 1 + len(states)]]
    again = body_of(body, inner, [*following, turn, *states], inputs=[turn, going, *states])
    names = [op.fresh("Loop") for _ in (*states, turn, *states)]
    op.write("Loop", node.inputs, names, name=names[0], body=again)
    last = [replace(t, name=name, constant=None) for t, name in zip(states, names, strict=False)]
    stacked = zip((turn, *states), names[len(states) :], strict=True)
    return last, [Tensor(name, t.dtype, (None, *(t.shape or ()))) for t, name in stacked]
