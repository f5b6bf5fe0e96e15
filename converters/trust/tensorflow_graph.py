"""Refuse TensorFlow graphs that do more than compute: a SavedModel folder, or a frozen graph.

Reads the protocol buffers alone, before TensorFlow's loader does. Every node of every graph and of every function is
checked, initialisers included. Loading a SavedModel never calls its functions that save and restore: the ops of
savers are accepted there, and nowhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from converters.errors import InvalidModel, one_line
from converters.trust.pure_ops import SAVER_OPS, is_pure
from converters.trust.refusal import untrusted

_NO_OPS: frozenset[str] = frozenset()


def refuse_saved_model(folder: str) -> None:
    """Raise UntrustedModel where a SavedModel folder holds an op that is not pure, or links to other folders."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    _refuse_links(folder)
    saved = SavedModel()
    try:
        saved.ParseFromString(Path(folder, "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's errors share no base but Exception
        raise InvalidModel(f"{folder} is a damaged SavedModel: {one_line(error)}") from error
    # TensorFlow loads any other file as a graph of TensorFlow 1, whose savers it runs.
    by_objects = len(saved.meta_graphs) == 1 and saved.meta_graphs[0].HasField("object_graph_def")
    for meta_graph in saved.meta_graphs:
        graph = meta_graph.graph_def
        library = {function.signature.name: function for function in graph.library.function}
        called = _called(meta_graph, library) if by_objects else set(library)
        saver_ops = SAVER_OPS if by_objects else _NO_OPS
        _refuse(folder, "the graph", graph.node, library, saver_ops)
        for name, function in library.items():
            allowed = _NO_OPS if name in called else saver_ops
            _refuse(folder, f"the function {name!r}", function.node_def, library, allowed)


def refuse_graph(path: str, graph: Any) -> None:
    """Raise UntrustedModel where a GraphDef holds an op that is not pure. path: its file, for the message."""
    library = {function.signature.name: function for function in graph.library.function}
    _refuse(path, "the graph", graph.node, library, _NO_OPS)
    for name, function in library.items():
        _refuse(path, f"the function {name!r}", function.node_def, library, _NO_OPS)


def _refuse(
    path: str, place: str, nodes: Iterable[Any], library: dict[str, Any], allowed: frozenset[str]
) -> None:
    from tensorflow.python.framework import op_def_registry

    for node in nodes:
        for op in (node.op, *_functions_of(node)):
            # A function may have the name of an op: its own nodes are checked, and so is the op.
            op_def = op_def_registry.get(op)
            if op_def is None and op not in library:
                raise untrusted(path, f"holds {op!r} in {place}, an op that TensorFlow does not know")
            if op_def is not None and op not in allowed and not is_pure(op_def):
                raise untrusted(
                    path,
                    f"holds the op {op} in {place}, and it can do more than compute, such as access files",
                )


def _functions_of(node: Any) -> Iterator[str]:
    """The functions that the attributes of a node name: TensorFlow takes the names of ops there, too."""
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (called.name for called in value.list.func)


def _called(meta_graph: Any, library: dict[str, Any]) -> set[str]:
    """The functions that objects of a SavedModel can call: all that are named outside the graph and the savers."""
    waiting = list(_texts(meta_graph.object_graph_def))
    for holder in (
        *meta_graph.graph_def.library.gradient,
        *meta_graph.graph_def.library.registered_gradients,
    ):
        waiting += _texts(holder)
    # TensorFlow chooses between functions of one interface by itself.
    waiting += [name for name, function in library.items() if "api_implements" in function.attr]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in library and name not in found:
            found.add(name)
            waiting += _texts(library[name])
    return found


def _texts(message: Any) -> Iterator[str]:
    """Every text in a protocol buffer, but for the values of tensors."""
    for field, value in message.ListFields():
        if field.name == "tensor":
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from (key for key in value if isinstance(key, str))
            parts: Iterable[Any] = value.values()
        elif hasattr(value, "ListFields") or isinstance(value, (str, bytes, bool, int, float)):
            parts = (value,)
        else:
            parts = value
        for part in parts:
            if hasattr(part, "ListFields"):
                yield from _texts(part)
            elif isinstance(part, (str, bytes)):
                yield part if isinstance(part, str) else part.decode(errors="replace")


def _refuse_links(folder: str) -> None:
    """Raise UntrustedModel where a file of the folder lies elsewhere, or is a device or a pipe."""
    root = Path(folder).resolve()
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(place, name)
            target = path.resolve()
            if not target.is_relative_to(root):
                raise untrusted(folder, f"holds {name!r}, a link to a file outside the folder")
            if target.exists() and not stat.S_ISREG(target.stat().st_mode) and not target.is_dir():
                raise untrusted(folder, f"holds {name!r}, which is not a file")
