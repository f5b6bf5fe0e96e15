"""Tell the nodes of a TensorFlow 1 SavedModel that save and restore it from the nodes that a caller can run.

Reads a MetaGraphDef without an object graph. Loading it runs what its restore operation, its initialisers and its
signatures read, and nothing else: a node that none of these reads is never run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any

from google.protobuf.message import DecodeError

from converters.sources.trust.proto_texts import texts
from converters.sources.trust.pure_ops import SAVER_OPS


def saver_nodes(meta_graph: Any) -> dict[str, frozenset[str]]:
    """Return {node: the saver ops that it may have}, of the nodes that may have one."""
    inputs = {node.name: [_node_of(name) for name in node.input] for node in meta_graph.graph_def.node}
    run = _read_by(_entries(meta_graph), inputs)
    restoring = _read_by([meta_graph.saver_def.restore_op_name], inputs)
    found = {name: SAVER_OPS for name in inputs if name not in run and name not in restoring}
    # The loader puts the path of the model's own variables in place of this tensor.
    prefix = _node_of(meta_graph.saver_def.filename_tensor_name)
    for node in meta_graph.graph_def.node:
        reads = inputs[node.name][:1]
        if node.op == "RestoreV2" and node.name not in run and prefix and reads == [prefix]:
            found[node.name] = frozenset({"RestoreV2"}) | found.get(node.name, frozenset())
    return found


def _read_by(names: Iterable[str], inputs: dict[str, list[str]]) -> set[str]:
    """The nodes of these names, and all that they read, directly or not."""
    waiting, found = list(names), set()
    while waiting:
        name = waiting.pop()
        if name in inputs and name not in found:
            found.add(name)
            waiting += inputs[name]
    return found


def _entries(meta_graph: Any) -> Iterator[str]:
    """The nodes that signatures and collections name: outputs, initialisers, main operations."""
    from tensorflow.core.framework.variable_pb2 import VariableDef

    for signature in meta_graph.signature_def.values():
        yield from map(_node_of, texts(signature))
    for key, collection in meta_graph.collection_def.items():
        if key == "savers":
            continue  # Loading restores with meta_graph.saver_def alone.
        yield from map(_node_of, texts(collection))
        for content in collection.bytes_list.value:
            variable = VariableDef()
            # Other collections hold other messages, which name no node that is run.
            with suppress(DecodeError):
                variable.ParseFromString(content)
                yield from map(_node_of, texts(variable))


def _node_of(tensor: str) -> str:
    """The node of a tensor "x:0" or of a control input "^x"."""
    return tensor.removeprefix("^").partition(":")[0]
