"""Panels of pictures side by side, as matplotlib figures made without pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyzer.figures.heat import overlay
from analyzer.figures.images import photographs, to_planes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from converters.model import Preprocessing


def panel(rows: Sequence[Sequence[tuple[str, np.ndarray]]], *, width: float = 3.0) -> Figure:
    """Draw a grid of captioned pictures. rows: per row, (caption, (H, W, 3) pixels)."""
    from matplotlib.figure import Figure

    columns = max(len(row) for row in rows)
    height, breadth = rows[0][0][1].shape[:2]
    size = (width * columns, (width * height / breadth + 0.35) * len(rows))
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, cells in zip(rows, grid, strict=True):
        for (caption, pixels), axes in zip(row, cells, strict=False):
            axes.imshow(pixels, interpolation="nearest")
            axes.set_title(caption, fontsize=9, loc="left")
    return figure


def attribution_figure(
    inputs: np.ndarray,
    attributions: np.ndarray,
    *,
    preprocessing: Preprocessing | None = None,
    signed: bool = False,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Photograph and overlay side by side, one row a sample.

    inputs: (N, C, H, W) or (N, H, W, C), normalised or not. attributions: (N, H, W), or shaped like the
    inputs, then summed over channels. Raises ValueError where they are no images.
    """
    pictures = photographs(inputs, preprocessing)
    planes = to_planes(attributions, preprocessing.layout if preprocessing else None)
    if pictures is None or planes is None:
        raise ValueError(f"no image to draw: inputs {inputs.shape}, attributions {attributions.shape}")
    names = titles or [f"sample {index}" for index in range(len(pictures))]
    return panel(
        [
            [(name, picture), ("attribution", overlay(picture, plane, signed=signed))]
            for name, picture, plane in zip(names, pictures, planes, strict=True)
        ]
    )
