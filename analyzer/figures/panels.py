"""Panels of pictures side by side, as matplotlib figures made without pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from analyzer.figures.heat import heat_map, overlay
from analyzer.figures.images import photographs, to_planes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from converters.model import Preprocessing

Captioned = tuple[str, np.ndarray]


def panel(rows: Sequence[Sequence[Captioned]], *, title: str = "", width: float = 3.0) -> Figure:
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
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure


def plot_maps(
    maps: np.ndarray,
    images: np.ndarray | None = None,
    *,
    signed: bool = False,
    title: str = "",
    preprocessing: Preprocessing | None = None,
    names: Sequence[str] | None = None,
) -> Figure:
    """Draw a batch of attributions, one column a sample: the photographs above, the overlays below.

    maps: (N, H, W), or (N, C, H, W) or (N, H, W, C), summed over channels; others are drawn as bars over
    the flat features. images: a batch as the model takes it, or photographs in [0, 1] or [0, 255].
    """
    layout = preprocessing.layout if preprocessing else None
    planes = to_planes(maps, layout)
    if planes is None:
        return _feature_bars(maps, title, names)
    pictures = None if images is None else photographs(np.asarray(images), preprocessing)
    captions = list(names) if names is not None else [f"sample {index}" for index in range(len(planes))]
    if pictures is None:
        drawn = [heat_map(plane, signed=signed) for plane in planes]
        return panel([list(zip(captions, drawn, strict=True))], title=title)
    laid = [overlay(picture, plane, signed=signed) for picture, plane in zip(pictures, planes, strict=True)]
    rows = [list(zip(captions, pictures, strict=True)), [("attribution", pixels) for pixels in laid]]
    return panel(rows, title=title)


def _feature_bars(values: np.ndarray, title: str, names: Sequence[str] | None) -> Figure:
    from matplotlib.figure import Figure

    flat = values.reshape(len(values), -1)
    figure = Figure(figsize=(7, 1.6 * len(flat) + 0.5), layout="constrained", dpi=120)
    for index, (axes, row) in enumerate(
        zip(figure.subplots(len(flat), 1, squeeze=False)[:, 0], flat, strict=True)
    ):
        axes.bar(range(len(row)), row, color=np.where(row < 0, "#3465a4", "#b3341f"), width=1.0)
        axes.axhline(0, color="#374151", linewidth=0.6)
        axes.set_title(names[index] if names else f"sample {index}", fontsize=9, loc="left")
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure
