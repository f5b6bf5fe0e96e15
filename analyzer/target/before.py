"""Find the logit before the last Softmax or Sigmoid, and state a target at that tensor.

From a Graph and a Target with `before` to a Target whose output is the input of the activation. Between the activation
and the explained output only nodes that move values may lie, and none that mixes samples. Refuses an output that no
such activation computes, and a Softmax over another axis than that of the classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from analyzer.errors import TargetError
from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.target.class_axis import class_axis
from analyzer.target.moves import Move, Moves
from analyzer.target.target import ACTIVATION, Bare, Chosen, Target

SOFTMAX, SIGMOID = "softmax", "sigmoid"
_KINDS = {"Softmax": SOFTMAX, "LogSoftmax": SOFTMAX, "Sigmoid": SIGMOID}
_MOVES = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Transpose"})
"""The ops that keep the values of a tensor."""

AxisInView = Callable[[str, int], int]


@dataclass(frozen=True)
class OutputActivation:
    """A Softmax or Sigmoid that computes an output.

    tensor: its input, the logits. kind: "softmax" or "sigmoid". logarithm: whether the output is its logarithm.
    path: the tensors from the output to the result of the activation.
    """

    node: Node
    tensor: str
    kind: str
    logarithm: bool
    path: tuple[str, ...]


def find_activation(graph: Graph, output: str) -> OutputActivation | None:
    """Return the Softmax or Sigmoid that computes an output, or its logarithm; None where another op does."""
    path, logarithm = [output], False
    while (node := graph.producer.get(path[-1])) is not None and not node.domain:
        if node.op_type in _KINDS:
            logarithm = logarithm or node.op_type == "LogSoftmax"
            return OutputActivation(node, node.inputs[0], _KINDS[node.op_type], logarithm, tuple(path))
        logged = node.op_type == "Log" and not logarithm
        if not (logged or node.op_type in _MOVES) or not graph.tensors[node.inputs[0]].is_float:
            return None
        logarithm = logarithm or logged
        path.append(node.inputs[0])
    return None


def at_logit(target: Target, graph: Graph, in_view: AxisInView = lambda name, axis: axis) -> Target:
    """Return the target with `before` carried out: it names the tensor of the logits. Raises TargetError.

    in_view: the axis of a tensor of the graph as the target counts it, where the samples are moved to the first axis.
    """
    if target.parts is not None:
        parts = tuple((factor, at_logit(part, graph, in_view)) for factor, part in target.parts)
        return replace(target, parts=parts)
    if not isinstance(target.before, str):
        return target
    output = target.output or graph.default_output
    found = logit_of(graph, output, target.before)
    moves = _moves(found, graph)
    assert moves is not None
    _check_axis(target, found, moves, graph, lambda axis: in_view(found.tensor, axis))
    changed = tuple(move for move in moves if move.changes)
    return replace(target, output=found.tensor, before=None, moved=Moves(changed) if changed else None)


def logit_output(target: Target, graph: Graph) -> str:
    """Return the tensor that a target of one output explains. Raises TargetError where it has no logit."""
    output = target.output or graph.default_output
    return logit_of(graph, output, target.before).tensor if isinstance(target.before, str) else output


def logits(graph: Graph, target: Target) -> dict[str, tuple[str, str]]:
    """Return {tensor of the logits: (output, activation)} of every part of a target with `before`."""
    found = {}
    for part in (target,) if target.parts is None else tuple(part for _, part in target.parts):
        if isinstance(part.before, str):
            output = part.output or graph.default_output
            found[logit_output(part, graph)] = (output, part.before)
    return found


def logit_of(graph: Graph, output: str, before: str) -> OutputActivation:
    """Return the activation of a kind that computes an output, its logits in the order of the output.

    before: "softmax", "sigmoid", or "activation" for either. Raises TargetError with the node that computes the output.
    """
    if output not in graph.tensors:
        raise TargetError(
            f"the model has no output {output!r}. Fix: choose from {', '.join(graph.outputs)}, or give a class by its "
            f"name as index={output!r}"
        )
    found = find_activation(graph, output)
    if found is None or before not in (ACTIVATION, found.kind):
        raise TargetError(_refusal(graph, output, before, found))
    if _moves(found, graph) is None:
        raise TargetError(
            f'before="{before}": expected {output!r} to hold the samples of {found.tensor!r}, the input of '
            f"{found.node}, along its first axis; a node between them moves or joins these, or leaves a shape open. "
            f"Fix: name the logits, Target(output={found.tensor!r}, index=…)"
        )
    return found


def _moves(found: OutputActivation, graph: Graph) -> list[Move] | None:
    """The steps from the logits to the output; None where one of them moves samples."""
    steps = []
    for name in reversed(found.path):
        node = graph.producer[name]
        step = Move.of(node, graph.tensors[node.inputs[0]], graph.tensors[name])
        if step is None:
            return None
        steps.append(step)
    return steps


def _refusal(graph: Graph, output: str, before: str, found: OutputActivation | None) -> str:
    """Return the message for an output that is not computed by an activation of that kind."""
    expected = "Softmax or Sigmoid" if before == ACTIVATION else before.capitalize()
    producer = graph.producer.get(output)
    if found is not None:
        return (
            f'before="{before}": expected {output!r} to be computed by {expected}, found {found.node}. '
            f'Fix: Target(…, before="{found.kind}")'
        )
    computed = "it is an input" if producer is None else f"found {producer}"
    above = graph.ancestors([output])
    nearest = next(
        (n for n in reversed(graph.nodes) if n.op_type in _KINDS and above.intersection(n.outputs)), None
    )
    fix = (
        "omit before (--logit) where the output is the logit already, or name the tensor of the logits, "
        "Target(output=…)"
    )
    if nearest is not None:
        fix = (
            f"name the tensor of the logits, such as Target(output={nearest.inputs[0]!r}), the input of the nearest "
            f"{nearest}; omit before (--logit) where the output is the logit already"
        )
    return f'before="{before}": expected {output!r} to be computed by {expected}, {computed}. Fix: {fix}'


def _check_axis(
    target: Target,
    found: OutputActivation,
    moves: list[Move],
    graph: Graph,
    in_view: Callable[[int], int],
) -> None:
    """Raise TargetError where a Softmax normalizes along another axis than that of the target's classes."""
    if found.kind != SOFTMAX:
        return
    result, y = graph.tensors[found.path[-1]], graph.tensors[found.path[0]]
    assert result.shape is not None and y.shape is not None
    axis: int | None = int(found.node.attributes["axis"]) % max(result.rank, 1)
    along = f"axis {axis} of {result.name!r} {result.shape}"
    for move in moves:
        axis = None if axis is None else move.axis(axis)
    classes = _classes_of(target, y)
    if axis is None or (y.rank > 1 and in_view(axis) == 0) or classes not in (None, in_view(axis)):
        raise TargetError(
            f"before: expected the classes of {y.name!r} {y.shape} on the axis of {found.node}, which is {along}. "
            f"Fix: name the tensor that is to be explained, Target(output={found.tensor!r}, …)"
        )


def _classes_of(target: Target, y: Tensor) -> int | None:
    """The axis along which a target counts classes; None where it names elements or weights."""
    assert y.shape is not None
    if y.rank <= 1:
        return None
    if target.top is not None or (target.each is not None and not isinstance(target.each, Chosen)):
        return 1
    if target.index is None or isinstance(target.index, (tuple, Chosen)):
        return 1 if y.rank == 2 and isinstance(target.index, Bare) else None
    return class_axis(target, y)


__all__ = [
    "ACTIVATION",
    "OutputActivation",
    "at_logit",
    "find_activation",
    "logit_of",
    "logit_output",
    "logits",
]
