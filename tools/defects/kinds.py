"""The registry of defects that are planted in a graph.

A kind is a function that spoils one node of an Edit and tells how, or returns None where the node is not eligible. It
need not ensure that shapes stay or that anything changes: effect.py measures both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx

from tools.defects.edit import Edit

Spoil = Callable[[Edit, onnx.NodeProto], str | None]


@dataclass(frozen=True)
class DefectKind:
    """A way to go wrong. ops: the op types at which it can be planted."""

    name: str
    ops: frozenset[str]
    spoil: Spoil


KINDS: dict[str, DefectKind] = {}


def defect(name: str, *ops: str) -> Callable[[Spoil], Spoil]:
    """Register a kind of defect."""

    def register(spoil: Spoil) -> Spoil:
        assert name not in KINDS, f"the kind {name!r} is registered twice"
        KINDS[name] = DefectKind(name, frozenset(ops), spoil)
        return spoil

    return register
