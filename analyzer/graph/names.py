"""Find tensors by the names that users know: ONNX names, module paths, names of Keras layers, or "embedding".

From a Graph and names to ONNX tensor names. Refuses names that the graph does not have, with names that are near;
constants; and names that several layers share.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

from analyzer.errors import AnalysisError, UnknownTensor, note
from analyzer.graph.embeddings import embedded_tokens
from analyzer.graph.graph import Graph
from analyzer.graph.layer_names import find_layer, output_of, path_of

EMBEDDING = "embedding"
"""The name of the vectors that a model looks up for its tokens."""


class TensorName(str):
    """The exact name of a tensor, also where "embedding" is the name of one of them."""


# They ask how large a tensor is, not what it holds.
_SIZES = frozenset({"Shape", "Size"})
_SUGGESTED = 3


def find_tensors(graph: Graph, names: str | Sequence[str]) -> tuple[str, ...]:
    """Return the ONNX names of the tensors that `names` means, each once.

    names: one of these, or a sequence of them. "embedding": the vectors that the inputs look up in constant tables,
        before anything is added. The ONNX name of a tensor. The path of a module ("layer1.0") or the name of a Keras
        layer ("dense", "block/dense"), as the exporter recorded it: every output of that layer.
    Raises UnknownTensor where there is no such tensor or layer; AnalysisError where a name means several layers.
    """
    wanted = [names] if isinstance(names, str) else list(names) if isinstance(names, Sequence) else [names]
    if not all(isinstance(name, str) for name in wanted):
        raise UnknownTensor(
            f"expected names of tensors or layers, as text, got {names!r}. Fix: choose names from fn.tensors"
        )
    return tuple(dict.fromkeys(found for name in wanted for found in _found(graph, name)))


def _found(graph: Graph, name: str) -> tuple[str, ...]:
    """Return the tensors of one name: the embedding, a tensor, or the outputs of a layer."""
    if isinstance(name, TensorName) and name in graph.tensors:
        # It stays exact: a part of the model looks its tensors up again.
        return (name,)
    if name == EMBEDDING and (vectors := embedded_tokens(graph)):
        return vectors
    tensor = graph.tensors.get(name)
    if tensor is not None and tensor.constant is None:
        return (name,)
    if outputs := _layer_outputs(graph, name):
        return outputs
    if tensor is not None:
        raise UnknownTensor(
            f"{name!r} is a constant of the model. Fix: name a tensor that is computed from the inputs"
        )
    if name == EMBEDDING:
        raise UnknownTensor(
            'no input is looked up in a constant table, which "embedding" means. Fix: name a tensor of fn.tensors'
        )
    near = near_names(name, known_names(graph))
    fix = f"try {', '.join(map(repr, near))}, or another one" if near else "choose one"
    raise UnknownTensor(
        f"the graph has no tensor and no layer {name!r}. Fix: {fix} that onnxplain inspect lists (fn.tensors in Python)"
    )


def known_names(graph: Graph) -> tuple[str, ...]:
    """Return the names that tensors are found by: layers, those folded into others among them, and tensors."""
    own = (scope for node in graph.nodes for scope in (*output_of(node), *path_of(node)[0]) if scope)
    return tuple(dict.fromkeys([*own, *(name for node in graph.nodes for name in node.outputs if name)]))


def near_names(name: str, known: Collection[str]) -> list[str]:
    """Return the known names whose spelling is near, those of the same letters and digits first."""
    plain: dict[str, list[str]] = {}
    for one in known:
        plain.setdefault(_plain(one), []).append(one)
    same = plain.get(_plain(name), [])
    near = difflib.get_close_matches(_plain(name), plain, n=_SUGGESTED)
    return list(dict.fromkeys([*same, *(one for key in near for one in plain[key])]))[:_SUGGESTED]


def _plain(name: str) -> str:
    """The letters and digits of a name, in small letters."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _layer_outputs(graph: Graph, name: str) -> tuple[str, ...]:
    """The float tensors that a layer computes and something else reads; none where there is no such layer."""
    homes = find_layer(graph, name)
    if not homes and (folded := _folded_into(graph, name)):
        return folded
    several = list(dict.fromkeys(homes.values()))
    if len(several) > 1:
        raise AnalysisError(f"several layers are called {name!r}. Fix: name one of {', '.join(several)}")
    fed = graph.descendants(graph.inputs)
    found = [
        output
        for node in graph.nodes
        if node.name in homes
        for output in node.outputs
        if output in fed and graph.tensors[output].is_float and _leaves(graph, output, homes)
    ]
    return tuple(found)


def _folded_into(graph: Graph, layer: str) -> tuple[str, ...]:
    """Return the output of the layers that a module was folded together with, and warn with a Note; () for no module.

    A BatchNormalization that is folded into a convolution leaves one tensor for both: that of the later layer.
    """
    for node in graph.nodes:
        path, _, modules = path_of(node)
        if modules and layer in path:
            output = node.outputs[0]
            note(
                f"{layer!r} was folded together with {output_of(node)[-1]!r}: the tensor {output!r} is the output of "
                "both. Convert the model without folding to keep them apart (fold_batch_norm=False, "
                "--no-fold-batch-norm)"
            )
            return (output,)
    return ()


def _leaves(graph: Graph, name: str, layer: Collection[str]) -> bool:
    """Whether a tensor is read outside a layer, for more than its size."""
    readers = graph.consumers.get(name, ())
    return name in graph.outputs or any(
        node.name not in layer and node.op_type not in _SIZES for node in readers
    )
