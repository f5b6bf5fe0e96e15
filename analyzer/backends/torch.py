"""The ONNX graph executed in PyTorch and differentiated by torch.autograd: check, GPU, float64 referee."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.backends.native import Arrays, Native
from analyzer.graph import Graph
from analyzer.interpreter import Interpreter, Torch
from analyzer.target import Seed


class TorchBackend(Native):
    """A graph in PyTorch."""

    name = "torch"

    def __init__(self, graph: Graph, device: str | None = None) -> None:
        super().__init__(graph, Torch(device))
        self._device = device
        self._interpreter = Interpreter(self.graph, self.framework)

    def known(self, feeds: Mapping[str, np.ndarray]) -> Collection[str]:
        """All tensors: the graph itself is what runs."""
        return self.graph.tensors.keys()

    def cut(self, graph: Graph) -> TorchBackend:
        """A graph cut out of this one, on the same device."""
        return TorchBackend(graph, self._device)

    def release(self) -> None:
        """Drop the programs, and the framework's copies of the weights."""
        super().release()
        self._interpreter.release()

    def forward(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> Arrays:
        """The values of these tensors."""
        torch: Any = self.framework.module
        with torch.no_grad():
            tensors = {name: self.framework.tensor(array) for name, array in feeds.items()}
            found = self._interpreter.run(tensors, names)
        return {name: self.framework.array(found[name]) for name in names}

    def measure(
        self, feeds: Mapping[str, np.ndarray], seed: Seed, values: Sequence[str], wrt: Sequence[str]
    ) -> tuple[np.ndarray, Arrays, Arrays]:
        """The whole output, values and gradients, by torch.autograd."""
        torch: Any = self.framework.module
        with torch.enable_grad():
            tensors = {name: self.framework.tensor(array) for name, array in feeds.items()}
            for tensor in tensors.values():
                tensor.requires_grad_(tensor.is_floating_point())
            found = self._interpreter.run(tensors, [*dict.fromkeys((seed.output, *values, *wrt))], _watched)
            y = found[seed.output]
            value = self.framework.array(y)
            cotangent = self.framework.tensor(seed.cotangent(value))
            gradients = (
                torch.autograd.grad(
                    y, [found[name] for name in wrt], grad_outputs=cotangent, allow_unused=True
                )
                if wrt
                else []
            )
        return (
            value,
            {name: self.framework.array(found[name]) for name in values},
            {
                name: self.framework.array(torch.zeros_like(found[name]) if g is None else g)
                for name, g in zip(wrt, gradients, strict=True)
            },
        )


def _watched(tensor: Any) -> Any:
    """The tensor, made a leaf of the autograd graph where it depends on none."""
    if tensor.requires_grad or not tensor.is_floating_point():
        return tensor
    return tensor.detach().requires_grad_()
