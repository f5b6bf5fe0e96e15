"""What a planted defect does, measured in float64, apart from everything that a check does.

A defect is one only where it shows: the output, the gradient at what is attributed or, where a graph is held against
its source, any tensor on the way must differ by more than EFFECT between the two models in double precision. A wrong
weight behind a dead unit, or an epsilon beside a large variance, shows nowhere; the generator then draws again. Two
models, which `compare` holds against each other, may differ within: a bias that a later normalization takes away is no
defect of the function.
"""

from __future__ import annotations

import numpy as np

from analyzer import Target, differentiate
from analyzer.autodiff.biases import find_biases
from analyzer.checks.tolerances import DEFAULT
from analyzer.errors import AnalysisError
from converters import Model
from converters.errors import ConversionError
from tools.defects.networks import Network
from tools.defects.rules import WrongRule

# Twice the tolerance: what one side adds in rounding may hide that much, and no more.
EFFECT = 2 * DEFAULT


def forward_effect(network: Network, planted: Model) -> float:
    """The largest relative L2 between the intact and the planted model; 0 where that does not run, or shapes move.

    Over the gradients at what is attributed, the output and, where there is a source, all that lies between.
    """
    right, wrong = (_measured(network, model) for model in (network.model, planted))
    if right is None or wrong is None or any(right[name].shape != wrong[name].shape for name in right):
        return 0.0
    return max(relative_l2(wrong[name], array) for name, array in right.items())


def _measured(network: Network, model: Model) -> dict[str, np.ndarray] | None:
    try:
        fn = differentiate(model, "torch", precision="float64")
        graph = differentiate(network.model).graph
        path = graph.descendants(network.wrt or graph.inputs) & graph.ancestors(graph.outputs[:1])
        path = path if network.model.source is not None else frozenset(graph.outputs[:1])
        names = [name for name in fn.tensors if name in path and fn.graph.tensors[name].is_float]
        values = fn.forward(network.feeds, names)
        gradients = fn.gradients(network.feeds, Target(graph.outputs[0], index=network.target), network.wrt)
    except (AnalysisError, ConversionError):
        return None
    found = {**values, **{f"gradient at {name}": array for name, array in gradients.gradients.items()}}
    return found if all(np.isfinite(array).all() or name in values for name, array in found.items()) else None


def gradient_effect(network: Network, rule: WrongRule) -> float:
    """The largest relative L2 that a wrong rule makes in its own backend's gradients at the inputs and the biases."""
    graph = differentiate(network.model).graph
    roots = network.wrt or graph.inputs
    biased = [bias.tensor for bias in find_biases(graph, graph.outputs[:1], roots)]
    wrt = list(dict.fromkeys([*roots, *biased]))
    target = Target(graph.outputs[0], index=network.target)

    def measured() -> dict[str, np.ndarray]:
        fn = differentiate(network.model, rule.backend)
        known = fn.engine.known(network.feeds)
        return fn.gradients(network.feeds, target, [name for name in wrt if name in known]).gradients

    right = measured()
    with rule.planted():
        wrong = measured()
    return max(relative_l2(wrong[name], array) for name, array in right.items())


def relative_l2(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / max(‖a‖, ‖b‖) over what is finite on both sides, in double precision."""
    finite = np.isfinite(a) & np.isfinite(b)
    x, y = a[finite].astype(np.float64), b[finite].astype(np.float64)
    scale = max(float(np.linalg.norm(x)), float(np.linalg.norm(y)))
    return float(np.linalg.norm(x - y)) / scale if scale else 0.0
