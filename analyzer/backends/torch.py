"""The ONNX graph executed in PyTorch and differentiated by torch.autograd: check, GPU, float64 referee."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.backends.interpreter import Interpreter, Torch
from analyzer.backends.native import Measured, Native
from analyzer.graph.graph import Graph
from analyzer.target.target import Seed
from analyzer.types import Arrays


class TorchBackend(Native):
    """A graph in PyTorch."""

    name = "torch"

    def __init__(self, graph: Graph, device: str | None = None) -> None:
        self._framework = Torch(device)
        super().__init__(graph, self._framework)
        self._interpreter = Interpreter(self.graph, self.framework)

    def known(self, feeds: Mapping[str, np.ndarray]) -> Collection[str]:
        """All tensors: the graph itself is what runs."""
        return self.graph.tensors.keys()

    def cut(self, graph: Graph) -> TorchBackend:
        """A graph cut out of this one, on the same device."""
        return TorchBackend(graph, self._framework.device)

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
    ) -> Measured:
        """The seed's whole outputs, values and gradients, by torch.autograd: one forward pass for all scalars."""
        torch: Any = self.framework.module
        with torch.enable_grad():
            tensors = {name: self.framework.tensor(array) for name, array in feeds.items()}
            for tensor in tensors.values():
                tensor.requires_grad_(tensor.is_floating_point())
            wanted = [*dict.fromkeys((*seed.outputs, *values, *wrt))]
            found = self._interpreter.run(tensors, wanted, _watched)
            outputs = {name: self.framework.array(found[name]) for name in seed.outputs}
            gradients = autograd(self._framework, found, seed.cotangents(outputs), wrt)
        return Measured(outputs, {name: self.framework.array(found[name]) for name in values}, gradients)


def autograd(
    framework: Torch, found: Mapping[str, Any], cotangents: Sequence[Arrays], wrt: Sequence[str]
) -> list[Arrays]:
    """The gradients of Σ ⟨cotangent, output⟩ for each of the cotangents {output: array}; zeros where none depends."""
    torch: Any = framework.module
    gradients = []
    for left, given in zip(reversed(range(len(cotangents))), cotangents, strict=True):
        computed = (
            torch.autograd.grad(
                [found[name] for name in given],
                [found[name] for name in wrt],
                grad_outputs=[framework.tensor(array) for array in given.values()],
                allow_unused=True,
                retain_graph=left > 0,
            )
            if wrt
            else ()
        )
        gradients.append(
            {
                name: framework.array(torch.zeros_like(found[name]) if g is None else g)
                for name, g in zip(wrt, computed, strict=True)
            }
        )
    return gradients


def _watched(tensor: Any) -> Any:
    """The tensor, made a leaf of the autograd graph where it depends on none."""
    if tensor.requires_grad or not tensor.is_floating_point():
        return tensor
    return tensor.detach().requires_grad_()
