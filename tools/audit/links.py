"""Compare the producers and readers that a mutable graph keeps with those that onnx_ir finds in the same nodes."""

from __future__ import annotations

import onnx_ir

from converters.graph.mutable import MutableGraph


def assert_linked(graph: MutableGraph) -> None:
    """Raise AssertionError where a tensor has another producer, or is read another number of times."""
    theirs = onnx_ir.from_proto(graph.light_proto()).graph
    values = [*theirs.inputs, *theirs.initializers.values(), *(v for node in theirs for v in node.outputs)]
    named = {value.name: value for value in values if value.name}
    nodes = dict(zip(map(id, theirs), graph.nodes, strict=True))
    for name, value in named.items():
        producer, count = value.producer(), len(value.uses()) + value.is_graph_output()
        expected = None if producer is None else nodes[id(producer)]
        assert graph.producer(name) is expected, f"{name!r}: the producer is another one"
        assert graph.use_count(name) == count, f"{name!r} is read {count} times, not {graph.use_count(name)}"
        own = {id(nodes[id(use.node)]) for use in value.uses() if id(use.node) in nodes}
        assert own <= set(map(id, graph.readers(name))), f"{name!r}: a reader is missing"
