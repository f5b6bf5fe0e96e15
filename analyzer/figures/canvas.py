"""The figure that all pictures are drawn on: its labels are plain text, and a notebook shows it."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from converters.system.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WITH_PYPLOT: ContextVar[bool] = ContextVar("with_pyplot", default=False)


def new_figure(width: float, height: float, **settings: Any) -> Figure:
    """Make a figure of this size in inches.

    Names of tensors, classes and files are written as they are: `$` begins no formula, and control characters are
    written out.
    """
    if _WITH_PYPLOT.get():
        import matplotlib.pyplot

        return matplotlib.pyplot.figure(FigureClass=_figure_class(), figsize=(width, height), **settings)
    return _figure_class()(figsize=(width, height), **settings)


@contextmanager
def shown_by_pyplot() -> Iterator[None]:
    """Let `plt.show()` show the figures that are made within the block, where a script has imported pyplot.

    A notebook shows the figure that a cell returns; pyplot would show it a second time.
    """
    token = _WITH_PYPLOT.set("matplotlib.pyplot" in sys.modules and not _in_notebook())
    try:
        yield
    finally:
        _WITH_PYPLOT.reset(token)


def _in_notebook() -> bool:
    """Whether the code runs in a Jupyter kernel."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and hasattr(shell, "kernel")


@cache
def _figure_class() -> type[Figure]:
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

        def _repr_png_(self) -> bytes:
            return png_of(self)

    return PlainFigure


def png_of(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
