"""The node that computes each tensor, and the nodes that read it.

Follows the nodes of a MutableGraph one by one, so that no pass builds these tables again. Captures of subgraphs count
as reads. Every node is noted with the names that it had when it was added: it may change before it is removed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx

from converters.graph.nodes import reads


class Links:
    """Producers and readers, by tensor name."""

    def __init__(self, nodes: Iterable[onnx.NodeProto]) -> None:
        self._producers: dict[str, onnx.NodeProto] = {}
        self._readers: dict[str, dict[int, onnx.NodeProto]] = {}
        self._counts: Counter[str] = Counter()
        self._noted: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        for node in nodes:
            self.add(node)

    def add(self, node: onnx.NodeProto) -> None:
        """Note a new node."""
        given, made = tuple(reads(node)), tuple(name for name in node.output if name)
        self._noted[id(node)] = given, made
        self._counts.update(given)
        for name in given:
            self._readers.setdefault(name, {})[id(node)] = node
        for name in made:
            self._producers[name] = node

    def remove(self, node: onnx.NodeProto) -> None:
        """Forget a node."""
        given, made = self._noted.pop(id(node))
        self._counts.subtract(given)
        for name in given:
            self._readers[name].pop(id(node), None)
        for name in made:
            if self._producers.get(name) is node:
                del self._producers[name]

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a tensor; None for inputs and constants."""
        return self._producers.get(name)

    def readers(self, name: str) -> tuple[onnx.NodeProto, ...]:
        """Return the nodes that read a tensor, each once."""
        return tuple(self._readers.get(name, {}).values())

    def count(self, name: str) -> int:
        """Return how often nodes read a tensor."""
        return self._counts.get(name, 0)
