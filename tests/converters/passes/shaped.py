"""Small files around the shape of an input, for the tests of passes that read shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from tests.converters.passes.rewriting import Arrays, graph

NUMBERS: dict[str, Any] = {
    "i0": np.asarray(0),
    "i1": np.asarray(1),
    "last": np.asarray(-1),
    "k0": np.asarray([0]),
    "k1": np.asarray([1]),
    "k2": np.asarray([2]),
    "k3": np.asarray([3]),
    "back": np.asarray([-1]),
    "beyond": np.asarray([99]),
    "three": np.asarray([2, 0, 1]),
    "minus": np.asarray([-7, 7, -1]),
    "open": np.asarray([-1, -1, -1]),
    "ones": np.asarray([1, 1, 1]),
    "grid": np.asarray([3, 1]),
}


def shaped(
    nodes: str, outputs: str = "double y", shape: str = "2,3,4", more: Arrays | None = None
) -> onnx.ModelProto:
    """Return the file; s is the shape of x, and its names are the NUMBERS that are read."""
    text = f"(double[{shape}] x) => ({outputs}) {{ s = Shape(x) {nodes} }}"
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return graph(text, {name: array for name, array in (NUMBERS | (more or {})).items() if name in words})
