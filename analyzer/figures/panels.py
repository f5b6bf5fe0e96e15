"""Panels of pictures side by side, as matplotlib figures made without pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.figures.canvas import new_figure
from analyzer.figures.finite import drawable
from analyzer.figures.heat import STRENGTH, Scale, heat_map, overlay, scale_of, smoothed
from analyzer.figures.images import photographs, to_planes
from analyzer.types import as_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from converters.model import Preprocessing

Captioned = tuple[str, np.ndarray] | tuple[str, np.ndarray, Scale]


def panel(rows: Sequence[Sequence[Captioned]], *, title: str = "", width: float = 3.0) -> Figure:
    """Draw a grid of captioned pictures. rows: per row, (caption, (H, W, 3) pixels), with a Scale for a colour bar."""

    columns = max(len(row) for row in rows)
    height, breadth = rows[0][0][1].shape[:2]
    scaled = sum(any(len(cell) > 2 for cell in row) for row in rows)
    size = (
        width * columns,
        (width * height / breadth + 0.35) * len(rows) + 0.45 * scaled + 0.3 * bool(title),
    )
    figure = new_figure(*size, layout="constrained", dpi=120)
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
        axes.set_anchor("N")
    for row, cells in zip(rows, grid, strict=True):
        for (caption, pixels, *scale), axes in zip(row, cells, strict=False):
            axes.imshow(pixels, interpolation="nearest")
            axes.set_title(caption, fontsize=9, loc="left")
            if scale:
                _colour_bar(axes, scale[0])
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    return figure


def _colour_bar(axes: Any, scale: Scale) -> None:
    """A bar below a picture: both ends, zero where it is between them, and the unit."""
    # Inset, so that pictures with and without a bar stay of one size.
    bar = axes.inset_axes((0.0, -0.075, 1.0, 0.035))
    low, high = (scale.low, scale.high) if scale.high > scale.low else (scale.low - 0.5, scale.low + 0.5)
    bar.imshow(scale.colours(256)[None], aspect="auto", extent=(low, high, 0, 1))
    bar.set_yticks([])
    ticks = [low, 0, high] if scale.signed else [low, high]
    labels = bar.set_xticks(ticks, [_short(tick) for tick in ticks], fontsize=7)
    labels[0].label1.set_horizontalalignment("left")
    labels[-1].label1.set_horizontalalignment("right")
    bar.tick_params(length=2, pad=1)
    bar.set_xlabel(scale.unit, fontsize=7, labelpad=1)
    bar.spines[:].set_visible(False)


def _short(number: float) -> str:
    return f"{number:.3g}".replace("-", "−")


def plot_maps(
    maps: np.ndarray,
    images: np.ndarray | None = None,
    *,
    signed: bool = False,
    title: str = "",
    preprocessing: Preprocessing | None = None,
    names: Sequence[str] | None = None,
    unit: str = "",
    smoothing: float = 0.0,
    cmap: str | None = None,
    alpha: float | None = None,
    label: str = "attribution",
) -> Figure:
    """Draw a batch of attributions, one column a sample: the photographs above, the overlays with their scales below.

    maps: (N, H, W), or (N, C, H, W) or (N, H, W, C), summed over channels; others are drawn as bars over
    the flat features. images: a batch as the model takes it, or photographs in [0, 1] or [0, 255].
    NaN and infinite values are drawn as 0, and the title says so.
    unit: of the values, for the colour bar. smoothing: see `smoothed`; 0 draws every pixel as it is.
    cmap: a Matplotlib colour map. alpha: the opacity of the strongest pixels over a photograph, from 0 to 1.
    label: the caption of the overlays, such as the name of the method.
    """
    maps, title = drawable(as_array(maps), title)
    layout = preprocessing.layout if preprocessing else None
    planes = to_planes(maps, layout)
    if planes is None:
        return _feature_bars(maps, title, names)
    pictures = None if images is None else photographs(as_array(images), preprocessing)
    captions = list(names) if names is not None else [f"sample {index}" for index in range(len(planes))]
    shown = [smoothed(plane, smoothing) if smoothing else plane for plane in planes]
    scales = [scale_of(plane, unit, signed=signed, cmap=cmap) for plane in shown]
    if pictures is None:
        drawn = [heat_map(plane, signed=signed, cmap=cmap) for plane in shown]
        return panel([list(zip(captions, drawn, scales, strict=True))], title=title)
    strength = STRENGTH if alpha is None else alpha
    laid = [
        overlay(picture, plane, strength=strength, scale=scale)
        for picture, plane, scale in zip(pictures, shown, scales, strict=True)
    ]
    below = [(label, pixels, scale) for pixels, scale in zip(laid, scales, strict=True)]
    return panel([list(zip(captions, pictures, strict=True)), below], title=title)


def _feature_bars(values: np.ndarray, title: str, names: Sequence[str] | None) -> Figure:

    flat = values.reshape(len(values), -1)
    figure = new_figure(7, 1.6 * len(flat) + 0.5, layout="constrained", dpi=120)
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
