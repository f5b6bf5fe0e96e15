"""Write a Program into a Builder once more, at other inputs: a gradient at the points of a path, within one file.

From a Program, tensors for what it is fed and a prefix to the tensors of its results. Constants of the model keep their
names, so that weights are stored once. Refuses nothing: a Program is complete.
"""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor
from analyzer.graph.program import Program
from converters.graph.nodes import rename_in


def inlined(
    op: Builder, graph: Graph, program: Program, given: Mapping[str, Tensor], prefix: str
) -> dict[str, Tensor]:
    """Append the nodes of a program of `graph` to a Builder. Return its results by their keys.

    given: the tensor for each input of the program. prefix: of the names of all computed tensors.
    """
    names = {name: tensor.name for name, tensor in given.items()}
    for name, array in program.constants.items():
        own = graph.tensors.get(name)
        # The model's constants come into a file under their own names (program.py).
        kept = own is not None and own.constant is not None
        names[name] = name if kept else op.constant(array).name
    for node in program.nodes:
        names |= {name: f"{prefix}{name}" for name in node.output if name}
    for node in program.nodes:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = f"{prefix}{node.name}"
        rename_in(copied, names)
        op.nodes.append(copied)
    return {
        key: Tensor(names[tensor.name], tensor.dtype, tensor.shape) for key, tensor in program.results.items()
    }
