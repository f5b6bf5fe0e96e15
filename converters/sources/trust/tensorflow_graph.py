"""Refuse TensorFlow graphs that do more than compute: a SavedModel folder, or a frozen graph.

Reads the protocol buffers alone, before TensorFlow's loader does. Every node of every graph and of every function is
checked, initialisers included. Loading a SavedModel never calls its functions that save and restore: the ops of
savers are accepted there, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from converters.errors import InvalidModel, one_line
from converters.sources.trust.assets import TEXT_FILE_OPS, asset_readers, functions_of
from converters.sources.trust.proto_texts import texts
from converters.sources.trust.pure_ops import SAVER_OPS, is_pure
from converters.sources.trust.refusal import shown, untrusted
from converters.sources.trust.tensorflow1_saver import saver_nodes

_NO_OPS: frozenset[str] = frozenset()


def refuse_saved_model(folder: str) -> None:
    """Raise UntrustedModel where a SavedModel folder holds an op that is not pure, or links to other folders."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    _refuse_links(folder)
    saved = SavedModel()
    try:
        saved.ParseFromString(Path(folder, "saved_model.pb").read_bytes())
    except Exception as error:  # protobuf's errors share no base but Exception
        raise InvalidModel(
            f"{folder} is a damaged SavedModel ({one_line(error)}). Fix: write it again with tf.saved_model.save"
        ) from error
    for meta_graph in saved.meta_graphs:
        # TensorFlow loads any other file as one of TensorFlow 1.
        if len(saved.meta_graphs) == 1 and meta_graph.HasField("object_graph_def"):
            _refuse_objects(folder, meta_graph)
        else:
            _refuse_tensorflow_1(folder, meta_graph)


def _refuse_objects(folder: str, meta_graph: Any) -> None:
    """Check a file of TensorFlow 2: its objects call functions, and the nodes outside functions are never run."""
    graph = meta_graph.graph_def
    library = _library(graph)
    called, readers = _called(meta_graph, library), asset_readers(folder, meta_graph, library)
    _refuse(folder, "the graph", graph.node, library, _always(SAVER_OPS))
    for name, function in library.items():
        allowed = (_NO_OPS if name in called else SAVER_OPS) | (TEXT_FILE_OPS if name in readers else _NO_OPS)
        _refuse(folder, f"the function {shown(name)}", function.node_def, library, _always(allowed))


def _refuse_tensorflow_1(folder: str, meta_graph: Any) -> None:
    """Check a file of TensorFlow 1, which holds one graph with the operations that save and restore."""
    library, savers = _library(meta_graph.graph_def), saver_nodes(meta_graph)
    nodes = meta_graph.graph_def.node
    _refuse(folder, "the graph", nodes, library, lambda node: savers.get(node.name, _NO_OPS))
    _refuse_functions(folder, library)


def refuse_graph(path: str, graph: Any) -> None:
    """Raise UntrustedModel where a GraphDef holds an op that is not pure. path: its file, for the message."""
    library = _library(graph)
    _refuse(path, "the graph", graph.node, library)
    _refuse_functions(path, library)


def _always(ops: frozenset[str]) -> Callable[[Any], frozenset[str]]:
    return lambda node: ops


def _library(graph: Any) -> dict[str, Any]:
    return {function.signature.name: function for function in graph.library.function}


def _refuse_functions(path: str, library: dict[str, Any]) -> None:
    for name, function in library.items():
        _refuse(path, f"the function {shown(name)}", function.node_def, library)


def _refuse(
    path: str,
    place: str,
    nodes: Iterable[Any],
    library: dict[str, Any],
    allowed: Callable[[Any], frozenset[str]] = lambda node: _NO_OPS,
) -> None:
    """Raise UntrustedModel for a node whose op is not pure. allowed: further ops that a node may have."""
    from tensorflow.python.framework import op_def_registry

    for node in nodes:
        for op in functions_of(node):
            # A function may have the name of an op: its own nodes are checked, and so is the op.
            op_def = op_def_registry.get(op)
            if op_def is None and op not in library:
                raise untrusted(path, f"holds {shown(op)} in {place}, an op that TensorFlow does not know")
            if op_def is not None and op not in allowed(node) and not is_pure(op_def):
                raise untrusted(
                    path,
                    f"holds the op {op} in {place}, and it can do more than compute, such as access files",
                )


def _called(meta_graph: Any, library: dict[str, Any]) -> set[str]:
    """The functions that objects of a SavedModel can call: all that are named outside the graph and the savers."""
    waiting = list(texts(meta_graph.object_graph_def))
    for holder in (
        *meta_graph.graph_def.library.gradient,
        *meta_graph.graph_def.library.registered_gradients,
    ):
        waiting += texts(holder)
    # TensorFlow chooses between functions of one interface by itself.
    waiting += [name for name, function in library.items() if "api_implements" in function.attr]
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in library and name not in found:
            found.add(name)
            waiting += texts(library[name])
    return found


def _refuse_links(folder: str) -> None:
    """Raise UntrustedModel where a file that TensorFlow reads lies outside the folder, or is a device or a pipe."""
    root = Path(folder).resolve()
    for path in _files_read(Path(folder)):
        target = path.resolve()
        if not target.is_relative_to(root):
            raise untrusted(folder, f"holds {shown(path.name)}, a link to a file outside the folder")
        if target.exists() and not (target.is_file() or target.is_dir()):
            raise untrusted(folder, f"holds {shown(path.name)}, which is not a file")


def _files_read(folder: Path) -> Iterator[Path]:
    """The parts of a SavedModel, and everything in its subfolders."""
    for name in ("saved_model.pb", "fingerprint.pb", "assets", "debug", "variables"):
        yield folder / name
        yield from (folder / name).rglob("*")
