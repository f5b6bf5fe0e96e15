"""The ONNX graph executed in TensorFlow and differentiated by tf.GradientTape: an independent check."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.autodiff.request import Request
from analyzer.backends.batching.estimate import Costs
from analyzer.backends.interpreter import Interpreter, TensorFlow
from analyzer.backends.native import Measured, Native
from analyzer.graph.graph import Graph
from analyzer.target.target import Seed
from analyzer.types import Arrays


class TensorFlowBackend(Native):
    """A graph in TensorFlow."""

    name = "tensorflow"
    # Kernels have channels last: tensors are kept in both layouts.
    costs = Costs(tensors=2.5, weights=2, fixed=128 * 2**20, keeps=True)

    def __init__(self, graph: Graph, device: str | None = None) -> None:
        self._tensorflow = TensorFlow(device)
        super().__init__(graph, self._tensorflow)
        self._interpreter = Interpreter(self.graph, self.framework)

    def known(self, feeds: Mapping[str, np.ndarray]) -> Collection[str]:
        """All tensors: the graph itself is what runs."""
        return self.graph.tensors.keys()

    def cut(self, graph: Graph) -> TensorFlowBackend:
        """A graph cut out of this one, on the same device."""
        return TensorFlowBackend(graph, self._tensorflow.device)

    def release(self) -> None:
        """Drop the programs, and the framework's copies of the weights."""
        super().release()
        self._interpreter.release()

    def forward(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> Arrays:
        """The values of these tensors."""
        with self._tensorflow.placed():
            tensors = {name: self.framework.tensor(array) for name, array in feeds.items()}
            found = self._interpreter.run(tensors, names)
            return {name: self.framework.array(found[name]) for name in names}

    def evaluate(self, request: Request, feeds: Mapping[str, np.ndarray], seed: Seed) -> Arrays:
        """The results of the request, see `Native.evaluate`, computed on the device."""
        with self._tensorflow.placed():
            return super().evaluate(request, feeds, seed)

    def measure(
        self, feeds: Mapping[str, np.ndarray], seed: Seed, values: Sequence[str], wrt: Sequence[str]
    ) -> Measured:
        """The seed's whole outputs, values and gradients, by tf.GradientTape: one forward pass for all scalars."""
        tf: Any = self.framework.module
        tensors = {name: self.framework.tensor(array) for name, array in feeds.items()}
        with tf.GradientTape(persistent=seed.ranks is not None) as tape:
            tape.watch([tensor for tensor in tensors.values() if tensor.dtype.is_floating])

            def watched(tensor: Any) -> Any:
                if tensor.dtype.is_floating:
                    tape.watch(tensor)
                return tensor

            found = self._interpreter.run(tensors, [*dict.fromkeys((*seed.outputs, *values, *wrt))], watched)
        outputs = {name: self.framework.array(found[name]) for name in seed.outputs}
        gradients = []
        for given in seed.cotangents(outputs):
            computed = tape.gradient(
                [found[name] for name in given],
                [found[name] for name in wrt],
                output_gradients=[self.framework.tensor(array) for array in given.values()],
            )
            gradients.append(
                {
                    name: self.framework.array(
                        tf.zeros_like(found[name]) if g is None else tf.convert_to_tensor(g)
                    )
                    for name, g in zip(wrt, computed, strict=True)
                }
            )
        return Measured(outputs, {name: self.framework.array(found[name]) for name in values}, gradients)
