"""Find the functions of a SavedModel that fill tables from text files of the model's own assets folder.

A function counts if all its inputs are objects that the file binds to it, no other function calls it, and each name of
a text file is an input that is bound to an asset inside the folder. Nothing else can then choose the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEXT_FILE_OPS = frozenset({"InitializeTableFromTextFileV2"})


def asset_readers(folder: str, meta_graph: Any, library: dict[str, Any]) -> set[str]:
    """Return the names of these functions. Loading never runs the nodes outside functions, so these may call them."""
    called = {name for one in library.values() for node in one.node_def for name in functions_of(node)}
    readers = {
        name
        for name, one in library.items()
        if any(node.op in TEXT_FILE_OPS for node in one.node_def) and "api_implements" not in one.attr
    }
    return {
        name
        for name in readers - called
        if _reads_assets(library[name], _bound_to_assets(folder, meta_graph, library[name]))
    }


def _reads_assets(function: Any, assets: set[str]) -> bool:
    return all(set(node.input[1:2]) & assets for node in function.node_def if node.op in TEXT_FILE_OPS)


def _bound_to_assets(folder: str, meta_graph: Any, function: Any) -> set[str]:
    """The inputs of a function that are bound to assets; none where a caller gives some of its inputs."""
    objects = meta_graph.object_graph_def
    if function.signature.name not in objects.concrete_functions:
        return set()
    bound = objects.concrete_functions[function.signature.name].bound_inputs
    if len(bound) != len(function.signature.input_arg):
        return set()
    return {
        argument.name
        for argument, node in zip(function.signature.input_arg, bound, strict=True)
        if 0 <= node < len(objects.nodes) and _is_own_asset(folder, meta_graph, objects.nodes[node])
    }


def _is_own_asset(folder: str, meta_graph: Any, node: Any) -> bool:
    # A registered name makes TensorFlow build another object of the node.
    if node.WhichOneof("kind") != "asset" or node.registered_name:
        return False
    index = node.asset.asset_file_def_index
    if not 0 <= index < len(meta_graph.asset_file_def):
        return False
    assets = Path(folder, "assets").resolve()
    return bool((assets / meta_graph.asset_file_def[index].filename).resolve().is_relative_to(assets))


def functions_of(node: Any) -> Iterator[str]:
    """Yield the functions that a node names, in its attributes or as its op: TensorFlow takes names of ops in both."""
    yield node.op
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (called.name for called in value.list.func)
