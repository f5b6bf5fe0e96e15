"""Where in the image an element of an inner tensor stands: the meaning of axes, followed through the graph."""

from analyzer.placement.cells import Cells, Grid, whole
from analyzer.placement.walk import find_cells

__all__ = ["Cells", "Grid", "find_cells", "whole"]
