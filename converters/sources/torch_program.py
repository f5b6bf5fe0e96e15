"""Rewrite a PyTorch ExportedProgram, in place, where its ops mean something else for another number of samples.

A squeeze removes the axes whose size is 1 when it runs; a symbolic batch counts as larger than 1. The axes that
the trace removed are written down, so that a batch of one keeps its axis.
"""

from __future__ import annotations

from typing import Any


def state_squeezed_axes(torch: Any, program: Any) -> None:
    """Give every squeeze the axes that the trace removed."""
    aten = torch.ops.aten
    squeezes = (aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims)
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            if node.target not in squeezes:
                continue
            shape = node.args[0].meta["val"].shape
            given = node.args[1] if len(node.args) > 1 else list(range(len(shape)))
            axes = [given] if isinstance(given, int) else list(given)
            # A symbolic size is not an int: no comparison that would add a guard.
            axes = [axis for axis in axes if shape and isinstance(shape[axis], int) and shape[axis] == 1]
            node.target = aten.squeeze.dims if axes else aten.alias.default
            node.args = (node.args[0], axes) if axes else (node.args[0],)
        if hasattr(module, "recompile"):
            module.recompile()
