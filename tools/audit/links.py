"""Compare the producers and readers that a mutable graph keeps with those that onnx_ir finds in the same nodes."""

from __future__ import annotations

import onnx_ir

from converters.graph.mutable import Draft


def assert_linked(draft: Draft) -> None:
    """Raise AssertionError where a tensor has another producer, or is read another number of times."""
    graph = onnx_ir.from_proto(draft.light_proto()).graph
    values = [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]
    named = {value.name: value for value in values if value.name}
    nodes = dict(zip(map(id, graph), draft.nodes, strict=True))
    for name, value in named.items():
        producer, count = value.producer(), len(value.uses()) + value.is_graph_output()
        expected = None if producer is None else nodes[id(producer)]
        assert draft.producer(name) is expected, f"{name!r}: the producer is another one"
        assert draft.use_count(name) == count, f"{name!r} is read {count} times, not {draft.use_count(name)}"
        own = {id(nodes[id(use.node)]) for use in value.uses() if id(use.node) in nodes}
        assert own <= set(map(id, draft.readers(name))), f"{name!r}: a reader is missing"
