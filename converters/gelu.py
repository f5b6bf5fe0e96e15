"""Join a GELU that is written in primitives into the standard's Gelu, so that equal networks give equal graphs.

Rewrites a Draft: x · ½ · (1 + erf(x / √2)) in any order of its factors. Anything that is read elsewhere, or whose
constants are others, is left alone. Source: Hendrycks & Gimpel 2016.
"""

from __future__ import annotations

import math

import onnx
from onnx import helper

from converters.draft import Draft, is_standard

_TOLERANCE = 1e-5


def join_gelus(draft: Draft) -> bool:
    """Rewrite every one that is found. Returns whether any was."""
    if not any(is_standard(node, "Erf") for node in draft.nodes):
        return False
    reader = _Reader(draft)
    replaced: dict[int, onnx.NodeProto] = {}
    removed: list[onnx.NodeProto] = []
    for node in draft.nodes:
        found = reader.gelu(node) if is_standard(node, "Erf") else None
        if found is not None:
            x, last, inner = found
            gelu = helper.make_node("Gelu", [x], list(last.output), name=last.name)
            gelu.metadata_props.extend(last.metadata_props)
            replaced[id(last)] = gelu
            removed += inner
    draft.nodes = [replaced.get(id(node), node) for node in draft.nodes]
    draft.remove(removed)
    return bool(replaced)


class _Reader:
    """Who computes and who reads what, worked out once."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.producers, self.consumers, self.uses = draft.producers(), draft.consumers(), draft.uses()

    def gelu(self, erf: onnx.NodeProto) -> tuple[str, onnx.NodeProto, list[onnx.NodeProto]] | None:
        """The argument, the last node and the others, of the GELU around an Erf."""
        scaled = self.producers.get(erf.input[0])
        x = None if scaled is None else self._scaled_argument(scaled)
        plus_one = self._only_reader(erf.output[0], "Add")
        if x is None or scaled is None or plus_one is None or self._constant(plus_one, erf.output[0]) != 1:
            return None
        return self._product(x, plus_one, [scaled, erf])

    def _product(
        self, x: str, first: onnx.NodeProto, inner: list[onnx.NodeProto]
    ) -> tuple[str, onnx.NodeProto, list[onnx.NodeProto]] | None:
        """Follow the factors x and ½ that are multiplied to the bracket, one after the other or joined before."""
        node, inner, argument, half = first, list(inner), False, False
        while not (argument and half):
            name = node.output[0]
            inner.append(node)
            following = self._only_reader(name, "Mul")
            if following is None:
                return None
            other = following.input[1] if following.input[0] == name else following.input[0]
            joined = self.producers.get(other)
            if other == x and not argument:
                argument = True
            elif self._number(other) == 0.5 and not half:
                half = True
            elif joined is not None and not argument and not half and self._is_half_of(joined, x):
                argument = half = True
                inner.append(joined)
            else:
                return None
            node = following
        return x, node, inner

    def _is_half_of(self, node: onnx.NodeProto, x: str) -> bool:
        return (
            is_standard(node, "Mul")
            and x in node.input
            and self._constant(node, x) == 0.5
            and self.uses[node.output[0]] == 1
        )

    def _scaled_argument(self, node: onnx.NodeProto) -> str | None:
        """The x of x / √2, which nobody else reads scaled."""
        if self.uses[node.output[0]] != 1 or not is_standard(node, "Div", "Mul"):
            return None
        wanted = math.sqrt(2) if node.op_type == "Div" else math.sqrt(0.5)
        for x in list(node.input)[: 1 if node.op_type == "Div" else 2]:
            value = self._constant(node, x)
            if value is not None and abs(value - wanted) <= _TOLERANCE:
                return x
        return None

    def _only_reader(self, name: str, op_type: str) -> onnx.NodeProto | None:
        # What the graph gives out is used without a node that reads it.
        readers = self.consumers.get(name, [])
        return readers[0] if readers and self.uses[name] == 1 and is_standard(readers[0], op_type) else None

    def _constant(self, node: onnx.NodeProto, beside: str) -> float | None:
        """The number that a node of two operands has beside one of them."""
        others = [name for name in node.input if name != beside]
        return self._number(others[0]) if len(others) == 1 else None

    def _number(self, name: str) -> float | None:
        value = self.draft.constants.get(name)
        # A constant with axes of its own could widen the result.
        return None if value is None or value.size != 1 or value.ndim > 1 else float(value.reshape(()))
