"""Tell the inputs of a text model apart by their names: token ids, mask, token types and positions.

From a Graph to TokenInputs; None where an input is none of these. Names are those of transformers, such as input_ids
and attention_mask; a single integer input is the ids, whatever its name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from analyzer.graph.embeddings import embedded_tokens
from analyzer.graph.graph import Graph

_WORDS = {"mask": ("mask",), "types": ("type", "segment"), "positions": ("position",)}
_IDS = ("id", "token", "word", "text")


@dataclass(frozen=True)
class TokenInputs:
    """The names of the inputs (N, T) of a text model; None for one that it does not have."""

    ids: str
    mask: str | None = None
    types: str | None = None
    positions: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that the model has."""
        return tuple(filter(None, (self.ids, self.mask, self.types, self.positions)))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Yield the kind and the name of each input."""
        known = {"ids": self.ids, "mask": self.mask, "types": self.types, "positions": self.positions}
        return ((kind, name) for kind, name in known.items() if name is not None)


def kind_of_name(name: str, *, alone: bool) -> str:
    """Return "ids", "mask", "types" or "positions" of an input, "other" where its name tells nothing."""
    lower = name.lower()
    for kind, words in _WORDS.items():
        if any(word in lower for word in words):
            return kind
    return "ids" if alone or any(word in lower for word in _IDS) else "other"


def token_inputs(graph: Graph) -> TokenInputs | None:
    """Return the inputs of a text model; None where the model has others, two of one kind, or no integer ids."""
    found: dict[str, str] = {}
    for name in graph.inputs:
        kind = kind_of_name(name, alone=len(graph.inputs) == 1)
        shape = graph.tensors[name].shape
        if kind in found or kind == "other" or shape is None or len(shape) != 2:
            return None
        found[kind] = name
    if "ids" not in found or graph.tensors[found["ids"]].dtype.kind not in "iu":
        return None
    return TokenInputs(**found)


def token_vectors(graph: Graph) -> tuple[str, ...]:
    """Return the vectors that are looked up for the token ids, and not for a mask, types or positions.

    All lookups where the inputs cannot be told apart.
    """
    vectors = embedded_tokens(graph)
    known = token_inputs(graph)
    if known is None:
        return vectors
    reached = graph.descendants([known.ids])
    own = tuple(name for name in vectors if name in reached)
    # Positions that are counted from the ids which are no padding are a lookup of the ids, too.
    return own or vectors


def position_limit(graph: Graph) -> int | None:
    """Return how many positions a model has a vector for, None where it looks none up for a mask or positions."""
    known = token_inputs(graph)
    if known is None or not (counted := [name for name in (known.mask, known.positions) if name is not None]):
        return None
    reached = graph.descendants(counted)
    tables = (
        graph.tensors[node.inputs[0]]
        for node in graph.nodes
        if node.op_type == "Gather" and not node.attributes["axis"] and node.inputs[1] in reached
    )
    rows = [
        len(one.constant) for one in tables if one.constant is not None and one.is_float and one.rank == 2
    ]
    return min(rows, default=None)
