"""The gradients of a TensorFlow function with `tf.stop_gradient`, and without it, as it is exported.

A `tf.custom_gradient` is not compared: it is a closure over the traced graph, which freezing leaves behind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from analyzer.backends.interpreter import TensorFlow
from analyzer.backends.native import Fed
from analyzer.backends.source.tensorflow import STOPS, TensorFlowNetwork
from converters.model import TensorFlowSource
from converters.sources.torch_backward import MOST_TRIED, Backward, CustomPassage, differ
from converters.sources.torch_passages import Passage
from converters.types import NamedArrays

_LOOKUPS = ("Gather", "GatherV2", "ResourceGather")


def own_backward(
    source: TensorFlowSource, feeds: NamedArrays, weights: NamedArrays, wrt: Sequence[str], tolerance: float
) -> Backward | None:
    """Return both gradients of Σ ⟨weights, output⟩; None where nothing stops gradients.

    The arguments are those of converters.sources.torch_backward.own_backward.
    """
    operations = source.function.graph.get_operations()
    stops = {one.name: one.inputs[0].op.name for one in operations if one.type in STOPS}
    if not stops:
        return None
    at = {source.inputs[name]: name for name in wrt if name in source.inputs}
    if len(at) < len(set(wrt)):
        found = [y for one in operations if one.type in _LOOKUPS for y in one.outputs if y.dtype.is_floating]
        at |= {y.name: y.name for y in found}

    def gradients(stopping: Collection[str]) -> dict[str, np.ndarray]:
        network = TensorFlowNetwork(source, TensorFlow(), stopping)
        outputs = [source.outputs[name] for name in weights if name in source.outputs]
        found = network.measure(
            Fed(feeds), outputs, lambda ys: [_cotangents(source, weights, ys)], (), list(at)
        )
        return {at[name]: g.astype(np.float64) for name, g in found.gradients[0].items()}

    exported, own = gradients(()), gradients(stops)
    places: list[CustomPassage] = []
    if differ(own, exported, tolerance):
        tried = list(stops)[:MOST_TRIED]
        alone = [name for name in tried if differ(gradients((name,)), exported, tolerance)]
        places = [
            CustomPassage(Passage("tf.stop_gradient", "", "", ()), {name: stops[name]})
            for name in alone or stops
        ]
    return Backward(own, exported, tolerance, tuple(places))


def _cotangents(
    source: TensorFlowSource, weights: NamedArrays, ys: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The weights over each output; random ones where the shape is another."""
    rng, found = np.random.default_rng(0), dict[str, np.ndarray]()
    for name, given in weights.items():
        if name in source.outputs:
            y = ys[source.outputs[name]]
            drawn = given if given.shape == y.shape else rng.standard_normal(y.shape)
            found[source.outputs[name]] = np.asarray(drawn, y.dtype)
    return found
