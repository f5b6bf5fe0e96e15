"""Explain probabilities or their logarithms of an output that holds logits: append the Softmax to the graph.

From a Graph and a Target with `after` to a Graph with one more node and a Target of its output. Refuses an output that
is a probability already, and an output whose axis of classes is not known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.errors import TargetError
from analyzer.graph.graph import Graph, Node, Tensor, attribute_defaults
from analyzer.target.before import find_activation
from analyzer.target.class_axis import class_axis
from analyzer.target.target import Chosen, Target

_OPS = {"softmax": "Softmax", "log-softmax": "LogSoftmax"}
_NAME = re.compile(r"(?P<kind>softmax|log-softmax) of (?P<output>.*) along axis (?P<axis>\d+)", re.DOTALL)


def asked(target: Target) -> Target:
    """Return the target with `after` where it holds the classes of a result that explained such a tensor."""
    if target.parts is not None:
        return replace(target, parts=tuple((factor, asked(part)) for factor, part in target.parts))
    given = target.index if target.each is None else target.each
    name = given.output if isinstance(given, Chosen) and target.output is None else target.output
    found = None if name is None else parts_of(name)
    if found is None:
        return target
    output, kind, axis = found
    return replace(target, output=output, after=kind, axis=axis)


def refuse_after(target: Target) -> None:
    """Raise TargetError where a target has `after`, for a comparison of two models."""
    for part in (target,) if target.parts is None else tuple(part for _, part in target.parts):
        if asked(part).after is not None:
            raise TargetError(
                f"after={asked(part).after!r}: expected a target of the models' own outputs. Fix: omit after, and "
                "compare the logits"
            )


def tensors_after(graph: Graph, target: Target) -> tuple[tuple[str, str, int], ...]:
    """Return (output, kind, axis) of every tensor that a target with `after` explains. Raises TargetError."""
    if target.parts is not None:
        found = [one for _, part in target.parts for one in tensors_after(graph, part)]
        return tuple(dict.fromkeys(found))
    if target.after is None:
        return ()
    output = target.output or graph.default_output
    y = graph.tensors.get(output)
    if y is None or not y.is_float or y.shape is None or target.moved is not None:
        raise TargetError(
            f"after={target.after!r}: expected an output of known rank that holds logits, got {output!r}. Fix: name "
            f"the logits, Target(output=…), one of {', '.join(graph.outputs)}"
        )
    activation = find_activation(graph, output)
    if activation is not None and not (activation.logarithm and target.after == "log-softmax"):
        raise TargetError(
            f"after={target.after!r}: expected logits, and {output!r} is computed by {activation.node}. Fix: give "
            f'before="{activation.kind}", too, or omit after'
        )
    return ((output, target.after, _axis(target, y)),)


def with_activations(graph: Graph, tensors: Sequence[tuple[str, str, int]]) -> Graph:
    """Return the graph with these tensors, which `tensors_after` returns, as further outputs."""
    nodes, known = list(graph.nodes), dict(graph.tensors)
    for output, kind, axis in tensors:
        name = name_of(output, kind, axis)
        attributes = {**attribute_defaults(_OPS[kind], "", graph.opset), "axis": axis}
        nodes.append(Node(name, _OPS[kind], "", (output,), (name,), attributes))
        known[name] = replace(known[output], name=name)
    added = (name_of(*one) for one in tensors)
    return replace(graph, nodes=tuple(nodes), tensors=known, outputs=(*graph.outputs, *added))


def at_activation(target: Target, graph: Graph) -> Target:
    """Return the target with `after` carried out: it names the tensor that `with_activations` appends."""
    if target.parts is not None:
        parts = tuple((factor, at_activation(part, graph)) for factor, part in target.parts)
        return replace(target, parts=parts)
    found = tensors_after(graph, target)
    if not found:
        return target
    ((output, kind, axis),) = found
    counts = _counts_classes(target)
    name = name_of(output, kind, axis)
    index, each = (_of(given, name) for given in (target.index, target.each))
    axis_left = target.axis if counts else None
    return replace(target, output=name, after=None, axis=axis_left, index=index, each=each)


def _of(given: Any, name: str) -> Any:
    """Classes of a result, as classes of a tensor."""
    if isinstance(given, Chosen):
        given = given.view()
        given.output = name
    return given


def name_of(output: str, kind: str, axis: int) -> str:
    """Return the name of the tensor that is appended to an output."""
    return f"{kind} of {output} along axis {axis}"


def parts_of(name: str) -> tuple[str, str, int] | None:
    """Return (output, kind, axis) of a tensor that is appended to an output; None of any other tensor."""
    found = _NAME.fullmatch(name)
    return None if found is None else (found["output"], found["kind"], int(found["axis"]))


def activation(name: str, y: np.ndarray) -> np.ndarray:
    """Return the value of a tensor that is appended to an output of value y; y itself for any other tensor."""
    parts = parts_of(name)
    if parts is None:
        return y
    _, kind, axis = parts
    shifted = y - y.max(axis=axis, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return np.asarray(logarithms if kind == "log-softmax" else np.exp(logarithms))


def pulled_back(name: str, value: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return the cotangent of an output from that of the tensor appended to it, whose value is given."""
    parts = parts_of(name)
    if parts is None:
        return g
    _, kind, axis = parts
    if kind == "log-softmax":
        return np.asarray(g - np.exp(value) * g.sum(axis=axis, keepdims=True))
    return np.asarray(value * (g - (g * value).sum(axis=axis, keepdims=True)))


def _counts_classes(target: Target) -> bool:
    """Whether a target names classes along an axis, not elements or weights."""
    return target.index is not None and not isinstance(target.index, (tuple, Chosen))


def _axis(target: Target, y: Tensor) -> int:
    """The axis along which the probabilities sum to 1. Raises TargetError where it is not known."""
    if y.rank < 2:
        raise TargetError(
            f"after={target.after!r}: expected an output (N, classes), got {y.name!r} {y.shape}. Fix: omit after"
        )
    if y.rank == 2:
        return 1
    if _counts_classes(target):
        return class_axis(target, y)
    axis = target.axis
    if axis is None:
        raise TargetError(
            f"after={target.after!r}: expected the axis of the classes of {y.name!r} {y.shape}. Fix: give axis=-1, "
            "as for the tokens of a language model, or axis=1"
        )
    if not isinstance(axis, (int, np.integer)) or not -y.rank < axis < y.rank or axis % y.rank == 0:
        raise TargetError(
            f"the output {y.name!r} {y.shape} has no axis {axis!r} of classes after the samples. Fix: give axis=1 or "
            "axis=-1"
        )
    return int(axis) % y.rank
