"""What of a graph a user would call a layer's output, and what is a partial result inside a layer.

From a Graph to names of tensors. An exporter says to which module, or under which scope, a node belongs; a tensor that
only nodes of its own layer read, such as a product before its bias is added, is inner. A graph without such marks has
one layer a node.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile

import numpy as np

from analyzer.backends.source.matching import MOVES_ONLY
from analyzer.graph.graph import Graph, Node
from analyzer.graph.layer_names import ModulePath, path_of

# Of these the second operand leaves the first as it is, where it is all zeros or all ones.
NEUTRAL = {"Add": 0.0, "Sub": 0.0, "Mul": 1.0, "Div": 1.0, "Pow": 1.0}
COMMUTES = frozenset({"Add", "Mul"})
# tf2onnx numbers the nodes of its own making: Slice__305.
INSERTED = re.compile(r"__\d+$")


@dataclass(frozen=True)
class LayerView:
    """The layers of one graph, found once."""

    graph: Graph

    @cached_property
    def computed(self) -> tuple[str, ...]:
        """The float tensors that depend on an input and that a node computes, not merely moves, in graph order."""
        fed_by = self.graph.descendants(self.graph.inputs)
        return tuple(
            name
            for node in self.graph.nodes
            if not moves(self.graph, node)
            for name in node.outputs
            if name in fed_by and self.graph.tensors[name].is_float
        )

    @cached_property
    def inner(self) -> frozenset[str]:
        """Of the computed tensors, those that do not leave their layer."""
        outputs = set(self.graph.outputs)
        return frozenset(name for name in self.computed if name not in outputs and self._stays(name))

    def forms(self, name: str) -> list[str]:
        """A tensor, and what it is moved into before anything else reads it: all have its values and its gradient."""
        found = [name]
        while len(readers := self.graph.consumers.get(found[-1], ())) == 1:
            (node,) = readers
            if found[-1] in self.graph.outputs or not moves(self.graph, node) or len(node.outputs) > 1:
                break
            found.append(node.outputs[0])
        return found

    def end(self, name: str) -> str:
        """The output of the layer in which a partial result is alone, else the tensor itself."""
        last = name
        while last in self.inner:
            readers = self._readers(last)
            if len(readers) != 1 or readers[0].outputs[0] not in self._places:
                return name
            last = readers[0].outputs[0]
        return last

    @cached_property
    def _places(self) -> frozenset[str]:
        return frozenset(self.computed)

    def _stays(self, name: str) -> bool:
        node = self.graph.producer[name]
        # Padding is a layer in one framework, and a part of the layer behind it in the other.
        if inserted(node) or node.op_type == "Pad":
            return True
        home = self._homes[node.name]
        return all(self._homes[reader.name] == home for reader in self._readers(name))

    def _readers(self, name: str) -> list[Node]:
        """The nodes that compute with a tensor, wherever it is moved before."""
        found, stack = [], [name]
        while stack:
            for node in self.graph.consumers.get(stack.pop(), ()):
                if moves(self.graph, node) or inserted(node):
                    stack += [output for output in node.outputs if output]
                else:
                    found.append(node)
        return found

    @cached_property
    def _homes(self) -> Mapping[str, ModulePath]:
        """The layer of every node: the innermost module or scope, or what a containing one computes itself, by op."""
        paths = {node.name: path_of(node) for node in self.graph.nodes}
        shared = _shared([path for path, _, modules in paths.values() if not modules and len(path) > 1])
        children: dict[ModulePath, set[ModulePath]] = {}
        for path, _, _ in (paths[self.graph.producer[name].name] for name in self.computed):
            for depth in range(len(path)):
                children.setdefault(path[:depth], set()).add(path[: depth + 1])
        homes = {}
        for name, (path, op, modules) in paths.items():
            # A TensorFlow layer may have a scope of its own, such as "moments"; a PyTorch module within is a layer, and
            # so is any scope within that of the whole model. The root holds what has no scope: no layer.
            ends = (
                end
                for end in range(1 if modules else 2, len(path) + 1)
                if len(children.get(path[:end], ())) < (1 if modules or end <= shared else 2)
            )
            innermost = next(ends, None)
            homes[name] = path[:innermost] if innermost is not None else (*path, op)
        return homes


def _shared(paths: Sequence[ModulePath]) -> int:
    """How many scopes all paths begin with: those of the model as a whole."""
    levels = (len(set(level)) == 1 for level in zip(*paths, strict=False))
    return sum(1 for _ in takewhile(bool, levels))


def inserted(node: Node) -> bool:
    """Whether a converter made a node, and no layer of the network.

    PyTorch numbers the nodes of an operator of several outputs by these: its own output is that of number 0.
    """
    own = bool(path_of(node)[2]) and node.name.endswith("__0")
    return bool(INSERTED.search(node.name)) and not own


def moves(graph: Graph, node: Node) -> bool:
    """Whether a node gives its first input on as it is, but for its shape and order."""
    if node.op_type in MOVES_ONLY:
        return True
    neutral = NEUTRAL.get(node.op_type)
    if neutral is None:
        return False
    constants = [graph.tensors[name].constant for name in node.inputs]
    if node.op_type in COMMUTES and constants[0] is not None:
        constants.reverse()
    _, constant = constants
    return constant is not None and constant.size == 1 and bool(np.all(constant == neutral))
