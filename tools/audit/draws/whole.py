"""Graphs for the whole sequence of passes: each from what draws the graphs of one of them."""

from __future__ import annotations

from tools.audit.draws import attention, control, linear, sequences
from tools.audit.sketch import Sketch


def draw(sketch: Sketch) -> None:
    """Layers and what folds into them, packed layers, masked rows, lists, loops."""
    family = sketch.choose(
        *(linear.draw_folds, linear.draw_affine, linear.draw_packed, linear.draw_biases),
        *(attention.draw_masked, sequences.draw, control.draw),
    )
    family(sketch)
