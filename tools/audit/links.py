"""Compare the producers and readers that a mutable graph keeps with those that onnx_ir finds in the same nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx_ir

from converters.graph.mutable import MutableGraph


def assert_linked(graph: MutableGraph) -> None:
    """Raise AssertionError where a tensor has another producer, or is read another number of times."""
    theirs = onnx_ir.from_proto(graph.light_proto()).graph
    values = [*theirs.inputs, *theirs.initializers.values(), *(v for node in theirs for v in node.outputs)]
    named = {value.name: value for value in values if value.name}
    nodes = dict(zip(map(id, theirs), graph.nodes, strict=True))
    handed_on = Counter(_handed_on(theirs))
    for name, value in named.items():
        producer = value.producer()
        count = len(value.uses()) + value.is_graph_output() + handed_on[name]
        expected = None if producer is None else nodes[id(producer)]
        assert graph.producer(name) is expected, f"{name!r}: the producer is another one"
        assert graph.use_count(name) == count, f"{name!r} is read {count} times, not {graph.use_count(name)}"
        own = {id(nodes[id(use.node)]) for use in value.uses() if id(use.node) in nodes}
        assert own <= set(map(id, graph.readers(name))), f"{name!r}: a reader is missing"


def _handed_on(graph: onnx_ir.Graph) -> Iterator[str]:
    """Give the outputs of subgraphs that no node inside computes: onnx_ir does not connect them to the outer tensor."""
    for node in onnx_ir.traversal.RecursiveGraphIterator(graph):
        for entry in node.attributes.values():
            for body in (entry.as_graph(),) if entry.type == onnx_ir.AttributeType.GRAPH else ():
                inner = (*body.inputs, *body.initializers.values())
                yield from (
                    v.name for v in body.outputs if v.producer() is None and v not in inner and v.name
                )
