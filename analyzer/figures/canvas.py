"""The figure that all pictures are drawn on: its labels are plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.system.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float, **settings: Any) -> Figure:
    """Make a figure of this size in inches.

    Names of tensors, classes and files are written as they are: `$` begins no formula, and control characters are
    written out.
    """
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    class PlainFigure(Figure):
        def draw(self, renderer: Any) -> None:
            for axes in self.axes:
                # Ticks are made when they are asked for.
                axes.get_xticklabels(), axes.get_yticklabels()
            for label in self.findobj(Text):
                label.set_parse_math(False)
                label.set_text(printable(label.get_text()))
            super().draw(renderer)

    return PlainFigure(figsize=(width, height), **settings)
