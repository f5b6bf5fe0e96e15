"""Note where the explained output is a probability near 1, whose gradient nearly vanishes.

From a Graph and the explained scalars to a Note, which names the logit to explain in their place.
"""

from __future__ import annotations

import numpy as np

from analyzer.errors import TargetError, note
from analyzer.graph.graph import Graph
from analyzer.target.before import OutputActivation, find_activation, logit_of
from analyzer.target.target import Chosen

SATURATED = 0.99
"""Above this probability a Softmax or Sigmoid passes less than 1 % of the gradient of its logit."""


def note_saturated(graph: Graph, output: np.ndarray, target: np.ndarray | None) -> None:
    """Give a Note where a probability of a class is above 0.99. output, target: of a result, (N,) or (N, k)."""
    if (found := saturated(graph, output, target)) is not None:
        note(found)


def saturated(graph: Graph, output: np.ndarray, target: np.ndarray | None) -> str | None:
    """Return the remark on the first explained probability above 0.99; None where there is none.

    target: the classes that a result states, which know the name of their output.
    """
    if not isinstance(target, Chosen) or target.output not in graph.tensors or target.output is None:
        return None
    activation = find_activation(graph, target.output)
    if activation is None:
        return None
    values = np.asarray(output, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        probabilities = np.exp(values) if activation.logarithm else values
        above = probabilities > SATURATED
    if not above.any():
        return None
    place = tuple(int(axis) for axis in np.argwhere(above)[0])
    first, index = probabilities[place], int(np.asarray(target)[place])
    return (
        f"the explained probability of sample {place[0] if place else 0} is {_digits(float(first))}: above "
        f"{SATURATED} {activation.node} passes almost no gradient on, and attributions are small and noisy. "
        f"Fix: explain the logit, {_logit(graph, activation, index)}"
    )


def _digits(probability: float) -> str:
    """A probability near 1 with the digits that tell it from 1."""
    return "1 to six digits" if probability > 1 - 5e-7 else f"{probability:.6g}"


def _logit(graph: Graph, activation: OutputActivation, index: int) -> str:
    """Return the target that explains the logit of a class."""
    output = activation.path[0]
    y = graph.tensors[output]
    try:
        logit_of(graph, output, activation.kind)
    except TargetError:
        return f"Target(output={activation.tensor!r}, …)"
    named = "" if output == graph.default_output else f"output={output!r}, "
    chosen = f"index={index}" if named else f"{index}"
    said = f"{named}{chosen}, " if y.shape is not None and y.rank == 2 else f"{named}…, "
    return f'Target({said}before="{activation.kind}") (--logit)'
