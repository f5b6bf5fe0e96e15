"""Where in a network a node stands: the modules or scopes that the exporter recorded. From Nodes to names, and back."""

from __future__ import annotations

import re
from collections.abc import Callable

from analyzer.graph.graph import Graph, Node
from converters.passes.fold import OUTPUT_OF_KEY, SCOPES_KEY

ModulePath = tuple[str, ...]

# Keras calls a layer anew to trace it, and TensorFlow numbers the scope: the layer conv2d_1 stands in conv2d_1_1.
_CALL = re.compile(r"_\d+$")


def path_of(node: Node) -> tuple[ModulePath, str, bool]:
    """The modules or scopes that a node lies in, outermost first; the op's own name; whether they are modules."""
    scopes = node.metadata.get(SCOPES_KEY)
    if scopes:
        modules, op = modules_in(scopes)
        return modules, op, True
    # The tensor keeps its name where tf2onnx writes the node anew.
    *path, op = (node.outputs[0] if "/" in node.outputs[0] else node.name).split("/")
    # The steps of an unrolled loop are numbered, and the loop is one layer.
    end = next((index for index, scope in enumerate(path) if scope.isdigit()), len(path))
    return ("", *path[:end]), op, False


def output_of(node: Node) -> ModulePath:
    """The modules whose output a node computes: its own, unless one behind it was folded into it."""
    scopes = node.metadata.get(OUTPUT_OF_KEY)
    return modules_in(scopes)[0] if scopes else path_of(node)[0]


def modules_in(scopes: str) -> tuple[ModulePath, str]:
    """The modules, and the operator, of what torch.onnx records: a Python list as text, outermost first."""
    *found, op = (name.strip(" '\"") for name in scopes.strip("[]").split(","))
    return tuple(name for name in found if name), op


def layer_of(node: Node) -> str:
    """The innermost module that the exporter recorded for a node, or its scope, else its name."""
    path, _, modules = path_of(node)
    if modules and path:
        return path[-1]
    return node.name.rpartition("/")[0] or node.name


def in_layer(node: Node) -> str:
    """Return " of layer 'conv1'" where the exporter recorded the module of a node, else an empty text.

    A TensorFlow node has its layer in its name.
    """
    path, _, modules = path_of(node)
    return f" of layer {path[-1]!r}" if modules and path else ""


def find_layer(graph: Graph, name: str) -> dict[str, str]:
    """The nodes of a layer, {name of the node: full name of the layer}; several layers may share a short name.

    name: the path of a PyTorch module, the scope of a TensorFlow layer from the root on, the name of a Keras layer,
    with those of the models around it or without, or the name of a node that has no scope.
    """
    paths = {node.name: path_of(node) for node in graph.nodes}
    scopes = {node: path[1:] for node, (path, _, modules) in paths.items() if not modules}
    found = {n.name: name for n in graph.nodes if paths[n.name][2] and name in output_of(n)}
    wanted = tuple(name.split("/"))
    traced = all(_CALL.search(path[0]) for path in scopes.values() if path)
    found |= {node: name for node, path in scopes.items() if path[: len(wanted)] == wanted}
    if not found and traced:
        found = _within(scopes, wanted, lambda scope: _CALL.sub("", scope))
    if not found:
        found = _within(scopes, wanted, lambda scope: scope)
    return found or {node.name: name for node in graph.nodes if node.name == name}


def _within(scopes: dict[str, ModulePath], wanted: ModulePath, layer: Callable[[str], str]) -> dict[str, str]:
    """The nodes in whose scopes, each under the name of its layer, those wanted follow one another."""
    found = {}
    for node, scope in scopes.items():
        path = tuple(map(layer, scope))
        ends = range(len(wanted), len(path) + 1)
        end = next((end for end in ends if path[end - len(wanted) : end] == wanted), None)
        if end is not None:
            found[node] = "/".join(path[:end])
    return found
