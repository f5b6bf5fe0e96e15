"""Take apart a dense layer whose features go different ways, such as a packed projection to queries, keys and values.

Rewrites a MutableGraph: the layer becomes as many layers as there are ways, and a Concat under its name. Their biases
are terms of their own, as in the network that projects one after the other. The features must be told apart by Gather,
Slice or Split behind nothing but moves, and each must go one way; else the layer stays.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper

from converters.graph.insertion import inherit_origin
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard

_MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze")
_SELECTIONS = ("Gather", "Slice", "Split")
_LARGEST = 1 << 24


@dataclass(frozen=True)
class _Layer:
    """A product by a constant with a bias; `nodes` are a Gemm, or a MatMul and its Add."""

    nodes: tuple[onnx.NodeProto, ...]
    weight: np.ndarray
    bias: np.ndarray
    features: int

    @property
    def output(self) -> str:
        """The name of what it computes."""
        return str(self.nodes[-1].output[0])


def split_packed(graph: MutableGraph) -> int:
    """Take apart every such layer. Returns how many there were."""
    packing = _Packing(graph)
    replaced: dict[int, list[onnx.NodeProto]] = {}
    removed: list[onnx.NodeProto] = []
    for node in graph.nodes:
        layer = packing.layer(node)
        ways = [] if layer is None else packing.ways(layer)
        if layer is not None and len(ways) > 1:
            replaced[id(node)] = packing.apart(layer, ways)
            removed += layer.nodes[:-1]
    graph.replace(replaced)
    graph.remove(removed)
    return len(replaced)


class _Packing:
    def __init__(self, graph: MutableGraph) -> None:
        self._graph = graph

    def layer(self, node: onnx.NodeProto) -> _Layer | None:
        """The dense layer that ends with a node."""
        constants = self._graph.constants
        if is_standard(node, "Gemm") and len(node.input) == 3:
            weight, bias = constants.get(node.input[1]), constants.get(node.input[2])
            return self._made((node,), weight, bias, 0 if attribute(node, "transB", 0) else 1)
        if not is_standard(node, "Add"):
            return None
        for computed, given in (tuple(node.input), tuple(reversed(node.input))):
            product = self._graph.producer(computed)
            once = self._graph.use_count(computed) == 1
            if product is not None and is_standard(product, "MatMul") and once:
                return self._made((product, node), constants.get(product.input[1]), constants.get(given), 1)
        return None

    def _made(
        self, nodes: tuple[onnx.NodeProto, ...], weight: np.ndarray | None, bias: np.ndarray | None, axis: int
    ) -> _Layer | None:
        if weight is None or bias is None or weight.ndim != 2:
            return None
        features = weight.shape[axis]
        # A bias along other axes, such as positions, belongs to no feature alone.
        if bias.size != features or bias.ndim == 0 or bias.shape[-1] != features:
            return None
        product = self._graph.shape(nodes[0].output[0])
        # One with more axes than the product raises the rank of the sum.
        if bias.ndim > 1 and (product is None or bias.ndim > len(product)):
            return None
        return _Layer(nodes, weight, bias.reshape(-1), features)

    def ways(self, layer: _Layer) -> list[np.ndarray]:
        """The features that go each way; empty where they do not part, or share one."""
        moves, name = [], layer.output
        while (reader := self._graph.only_reader(name)) and is_standard(reader, *_MOVES):
            moves.append(reader)
            name = reader.output[0]
        readers, count = self._graph.readers(name), self._graph.use_count(name)
        if len(readers) != count or not all(is_standard(node, *_SELECTIONS) for node in readers):
            return []
        shape = self._graph.shape(layer.output)
        if shape is None or shape[-1] != layer.features:
            return []
        sizes = [size if isinstance(size, int) else 1 for size in shape]
        if math.prod(sizes) > _LARGEST:
            return []
        features: np.ndarray | None = np.broadcast_to(np.arange(layer.features), sizes)
        for node in moves:
            features = None if features is None else self._moved(node, features)
        if features is None:
            return []
        chosen = [part for node in readers for part in self._selected(node, features)]
        found = [np.unique(part) for part in chosen if part.size]
        together = np.sort(np.concatenate(found)) if found else np.zeros(0)
        return found if np.array_equal(together, np.arange(layer.features)) else []

    def apart(self, layer: _Layer, ways: list[np.ndarray]) -> list[onnx.NodeProto]:
        """A layer for each way, and their results in the order of the features."""
        last, stem = layer.nodes[-1], layer.output
        ways = sorted(ways, key=lambda features: int(features[0]))
        made, parts = [], []
        for index, features in enumerate(ways):
            parts.append(self._graph.fresh(f"{stem}.part{index}"))
            made += self._part(layer, features, parts[-1])
        order = np.concatenate(ways)
        if np.array_equal(order, np.arange(layer.features)):
            made.append(helper.make_node("Concat", parts, [stem], axis=-1))
        else:
            joined, back = self._graph.fresh(f"{stem}.parts"), self._graph.fresh(f"{stem}.order")
            self._graph.constants[back] = np.argsort(order)
            made.append(helper.make_node("Concat", parts, [joined], axis=-1))
            made.append(helper.make_node("Gather", [joined, back], [stem], axis=-1))
        inherit_origin(made, last)
        return made

    def _part(self, layer: _Layer, features: np.ndarray, result: str) -> list[onnx.NodeProto]:
        first = layer.nodes[0]
        transposed = first.op_type == "Gemm" and attribute(first, "transB", 0)
        weight = self._store(f"{result}.weight", layer.weight.take(features, 0 if transposed else 1))
        bias = self._store(f"{result}.bias", layer.bias[features])
        if first.op_type == "Gemm":
            node = helper.make_node("Gemm", [first.input[0], weight, bias], [result])
            node.attribute.extend(first.attribute)
            return [node]
        product = self._graph.fresh(f"{result}.product")
        return [
            helper.make_node("MatMul", [first.input[0], weight], [product]),
            helper.make_node("Add", [product, bias], [result]),
        ]

    def _store(self, stem: str, array: np.ndarray) -> str:
        name = self._graph.fresh(stem)
        self._graph.constants[name] = np.ascontiguousarray(array)
        return name

    def _numbers(self, node: onnx.NodeProto, index: int) -> list[int] | None:
        value = self._graph.constants.get(node.input[index]) if index < len(node.input) else None
        return None if value is None else [int(number) for number in value.reshape(-1)]

    def _moved(self, node: onnx.NodeProto, x: np.ndarray) -> np.ndarray | None:
        """What a move makes of an array; None where its axes or sizes are computed."""
        if node.op_type == "Transpose":
            return x.transpose(attribute(node, "perm"))
        numbers = self._numbers(node, 1)
        if numbers is None or attribute(node, "allowzero", 0):
            return None
        if node.op_type == "Squeeze":
            return x.squeeze(tuple(numbers))
        if node.op_type == "Unsqueeze":
            return np.expand_dims(x, tuple(numbers))
        try:
            return x.reshape([x.shape[axis] if size == 0 else size for axis, size in enumerate(numbers)])
        except ValueError:  # a size that the batch has a part in
            return None

    def _selected(self, node: onnx.NodeProto, x: np.ndarray) -> list[np.ndarray]:
        """What a selection gives of an array; nothing where it depends on what is computed."""
        axis = int(attribute(node, "axis", 0))
        if node.op_type == "Gather":
            indices = self._numbers(node, 1)
            return [] if indices is None else [x.take(indices, axis)]
        if node.op_type == "Split":
            sizes = self._numbers(node, 1)
            if sizes is None and len(node.input) > 1 and node.input[1]:
                return []
            if sizes is None:  # equal parts, but for a smaller last one
                size = -(-x.shape[axis] // len(node.output))
                sizes = [size] * len(node.output)
            return np.split(x, np.cumsum(sizes)[:-1], axis)
        starts, ends, axes, steps = (self._numbers(node, index) for index in (1, 2, 3, 4))
        if starts is None or ends is None or axes is None or any(step != 1 for step in steps or []):
            return []
        for start, end, along in zip(starts, ends, axes, strict=True):
            x = x.take(range(x.shape[along])[start:end], along)
        return [x]
