"""Repeat a rewriting of a graph until it changes nothing, and no more often than a bound.

`state_of` tells whether a graph changed since: a graph that has settled is not read again.

Every rewriting has a measure that decreases: nodes that are left to expand, to unroll or to fold, or axes whose size is
open. The bound turns a rewriting that breaks this rule into an error, where it would run forever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator

import onnx

from converters.budget import current
from converters.errors import UnsupportedModel
from converters.graph.mutable import MutableGraph
from converters.graph.tensors import is_invented

ROUNDS = 128
"""Real models settle within three rounds; each nested function, branch or loop takes one more."""


def settle(rewrite: Callable[[], bool], rounds: int = ROUNDS) -> None:
    """Call `rewrite` until it returns False.

    Raises UnsupportedModel where it still returns True after `rounds` calls.
    """
    for _ in range(rounds):
        current().check("simplifying the graph")
        if not rewrite():
            return
    raise UnsupportedModel(
        f"the graph still changes after {rounds} rounds of simplification: its functions, branches or loops are "
        "nested deeper than that. Fix: simplify the model before it is converted"
    )


def state_of(graph: MutableGraph) -> bytes:
    """Return a digest of what rewritings read: two graphs with one digest are the same to them.

    Symbols count by where they occur, not by their names: all rewritings treat them alike.
    """
    digest = hashlib.blake2b(repr((graph.opsets, sorted(graph.stated), graph.unrolled)).encode())
    for node in graph.nodes:
        digest.update(node.SerializeToString(deterministic=True))
    arrays = [(name, id(array), array.dtype.name, array.shape) for name, array in graph.constants.items()]
    digest.update(repr(arrays).encode())
    symbols: dict[str, str] = {}
    for infos in (graph.inputs, graph.outputs):
        digest.update(repr([info.name for info in infos]).encode())
        for info in infos:
            digest.update(_anonymous(info.type, symbols))
    for name in sorted(graph.types):
        digest.update(name.encode() + b"\0" + _anonymous(graph.types[name], symbols))
    return digest.digest()


def _anonymous(known: onnx.TypeProto, symbols: dict[str, str]) -> bytes:
    """Return a type with the symbols numbered in the order in which they occur."""
    if not known.HasField("tensor_type"):
        return bytes(known.SerializeToString(deterministic=True))
    shape = known.tensor_type.shape.dim if known.tensor_type.HasField("shape") else None
    return repr((known.tensor_type.elem_type, None if shape is None else [*_sizes(shape, symbols)])).encode()


def _sizes(
    shape: Iterable[onnx.TensorShapeProto.Dimension], symbols: dict[str, str]
) -> Iterator[int | str | None]:
    for axis in shape:
        if axis.HasField("dim_value"):
            yield axis.dim_value
        elif not axis.dim_param:
            yield None
        else:
            invented = "?" if is_invented(axis.dim_param) else "="
            yield symbols.setdefault(axis.dim_param, f"{invented}{len(symbols)}")
