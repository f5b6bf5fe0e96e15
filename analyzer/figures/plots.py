"""Maps of any input as a figure: over images, under signals, of volumes from three sides, and of tables in bars.

From a map (N, *spatial) and, where there is one, the input that it speaks of. Refuses what has more than three spatial
axes, and inputs that are not of the map's size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.figures.canvas import new_figure
from analyzer.figures.finite import drawable
from analyzer.figures.heat import STRENGTH, heat_map, normalized, overlay, scale_of, smoothed
from analyzer.figures.images import photographs
from analyzer.figures.palette import sequential, signed_colours
from analyzer.figures.panels import Captioned, panel, plot_maps
from analyzer.types import as_array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PALE, UNSIGNED = "#374151", "#9ca3af", "#7c3aed"
MOST_FEATURES = 40


@dataclass(frozen=True)
class Look:
    """What a figure says of its map. signed: red above zero and blue below. unit: of the values. smoothing: of images,
    see `smoothed`. features: the names of a table's columns. errors (N, features): the standard errors of a table.
    samples: the caption of each sample; default its number.
    cmap: a Matplotlib colour map, in place of the figure's own. alpha: the opacity of the strongest pixels.
    method: the name of the method, under which the overlays of images are shown.
    """

    title: str = ""
    unit: str = ""
    signed: bool = False
    smoothing: float = 0.0
    features: Sequence[str] | None = None
    errors: np.ndarray | None = None
    samples: Sequence[str] = ()
    cmap: str | None = None
    alpha: float | None = None
    method: str = "attribution"

    def sample(self, index: int) -> str:
        """What one of the samples is called."""
        return self.samples[index] if self.samples else f"sample {index}"


def plot_input(values: np.ndarray, inputs: np.ndarray | None, look: Look, *, table: bool) -> Figure:
    """Draw the map of one input, (N, *spatial). inputs: (N, channels, *spatial) or channels last; None draws the map
    alone. table: a map of one axis is of features, not of steps. NaN and infinite values are drawn as 0, and the
    title says so.

    Raises ValueError where the input's size is not the map's, or has more than three axes.
    """
    values, title = drawable(values, look.title)
    look = replace(look, title=title)
    if values.ndim == 3 and not table:
        return plot_maps(
            values,
            inputs,
            signed=look.signed,
            title=look.title,
            unit=look.unit,
            smoothing=look.smoothing,
            names=look.samples or None,
            cmap=look.cmap,
            alpha=look.alpha,
            label=look.method,
        )
    if values.ndim == 4:
        return _volumes(values, None if inputs is None else _channels_first(inputs, values), look)
    if values.ndim != 2:
        raise ValueError(
            f"a map of {values.ndim - 1} axes, {values.shape[1:]}, is not drawn. Fix: plot a slice of it, of 1 to 3 "
            "axes"
        )
    if table:
        return _tables(values, look)
    return _signals(values, None if inputs is None else _channels_first(inputs, values), look)


def _channels_first(inputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The input as (N, channels, *spatial). Raises ValueError where its size is not the map's."""
    inputs = as_array(inputs)
    if inputs.shape == values.shape:
        return inputs[:, None]
    for channel in (1, inputs.ndim - 1):
        moved = np.moveaxis(inputs, channel, 1)
        if moved.ndim == values.ndim + 1 and (moved.shape[0], *moved.shape[2:]) == values.shape:
            return moved
    raise ValueError(
        f"an input {inputs.shape} cannot be drawn with a map {values.shape}. Fix: give the inputs that were "
        "explained, or omit them"
    )


def _tables(values: np.ndarray, look: Look) -> Figure:
    """A bar per feature, samples side by side; beyond MOST_FEATURES the largest, and the sum of the others."""

    names, rows = _shown_features(values, look.features)
    errors = _shown_errors(values, look.errors)
    count = len(names)
    size = (1.4 + 2.6 * len(rows), 0.9 + 0.27 * count)
    figure = new_figure(*size, layout="constrained", dpi=120)
    grid = figure.subplots(1, len(rows), squeeze=False, sharey=True, sharex=True)[0]
    for index, (axes, row) in enumerate(zip(grid, rows, strict=True)):
        _draw_table(axes, row, names, None if errors is None else errors[index], look)
        axes.set_title(look.sample(index), fontsize=9, loc="left")
    grid[0].invert_yaxis()
    _label(figure, look, across=True)
    return figure


def _draw_table(
    axes: Any, row: np.ndarray, names: Sequence[str], errors: np.ndarray | None, look: Look
) -> None:
    places = range(len(names))
    axes.barh(places, row, color=_bar_colours(row, look.signed, look.cmap), height=0.72)
    if errors is not None:
        axes.errorbar(row, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, names, fontsize=8)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color="#e5e7eb", linewidth=0.6)
    axes.set_axisbelow(True)
    _plain(axes)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _shown_features(values: np.ndarray, features: Sequence[str] | None) -> tuple[list[str], np.ndarray]:
    names = [f"feature {k}" for k in range(values.shape[1])] if features is None else list(features)
    if len(names) != values.shape[1]:
        raise ValueError(
            f"{len(names)} names for {values.shape[1]} features. Fix: give one name for each feature"
        )
    if len(names) <= MOST_FEATURES:
        return names, values
    largest = _largest(values)
    rest = np.delete(values, largest, axis=1).sum(axis=1, keepdims=True)
    left = len(names) - len(largest)
    return [*(names[k] for k in largest), f"the other {left}"], np.concatenate(
        [values[:, largest], rest], axis=1
    )


def _shown_errors(values: np.ndarray, errors: np.ndarray | None) -> np.ndarray | None:
    """The standard errors of the bars; NaN, which draws none, of a sum of features, whose errors hang together."""
    if errors is None or values.shape[1] <= MOST_FEATURES:
        return errors
    unknown = np.full((len(values), 1), np.nan)
    return np.concatenate([errors[:, _largest(values)], unknown], axis=1)


def _largest(values: np.ndarray) -> np.ndarray:
    """The features that have bars of their own, in their order."""
    found: np.ndarray = np.sort(np.argsort(-np.abs(values).max(axis=0), kind="stable")[: MOST_FEATURES - 1])
    return found


def _bar_colours(row: np.ndarray, signed: bool, cmap: str | None = None) -> Any:
    return signed_colours(np.where(row < 0, -0.75, 0.75), cmap) if signed else UNSIGNED


def _signals(values: np.ndarray, signals: np.ndarray | None, look: Look) -> Figure:
    """Per sample the signal's channels over time, on a ground shaded by the map; without signals the map as a curve."""

    figure = new_figure(8, 0.9 + 1.5 * len(values), layout="constrained", dpi=120)
    grid = figure.subplots(len(values), 1, squeeze=False, sharex=True)[:, 0]
    for index, (axes, row) in enumerate(zip(grid, values, strict=True)):
        axes.set_title(look.sample(index), fontsize=9, loc="left")
        _draw_signal(axes, row, None if signals is None else signals[index], look)
    grid[-1].set_xlabel("step", fontsize=8)
    if signals is not None:
        _shading_bar(figure, grid, values, look)
        # The axis is the signal's: the unit of the shading stands with the title.
        shaded = replace(
            look, title=" · ".join(filter(None, [look.title, f"shaded by {look.unit}"])), unit=""
        )
        _label(figure, shaded, across=False)
    else:
        _label(figure, look, across=False)
    return figure


def _draw_signal(axes: Any, row: np.ndarray, signal: np.ndarray | None, look: Look) -> None:
    steps = np.arange(len(row))
    axes.set_xlim(-0.5, len(row) - 0.5)
    _plain(axes)
    if signal is None:
        _curve(axes, steps, row, look.signed)
        return
    _lines(axes, steps, signal)
    low, high = axes.get_ylim()
    axes.imshow(
        _shading(row, look.signed, look.cmap),
        extent=(-0.5, len(row) - 0.5, low, high), aspect="auto", interpolation="nearest", zorder=0,
    )  # fmt: skip
    axes.set_ylim(low, high)


def draw_input(
    axes: Any, values: np.ndarray, inputs: np.ndarray | None, look: Look, *, table: bool, sample: int = 0
) -> None:
    """Draw one sample's map into given axes, as `plot_input` draws all of them. Volumes are refused: they need three.

    Raises ValueError for a volume, and what `plot_input` raises.
    """
    row = slice(sample, sample + 1)
    values, title = drawable(values[row], look.title)
    if values.ndim == 3 and not table:
        (plane,) = values
        plane = smoothed(plane, look.smoothing) if look.smoothing else plane
        scale = scale_of(plane, look.unit, signed=look.signed, cmap=look.cmap)
        photograph = None if inputs is None else photographs(as_array(inputs)[row])
        if photograph is None:
            pixels = heat_map(plane, signed=look.signed, cmap=look.cmap)
        else:
            strength = STRENGTH if look.alpha is None else look.alpha
            pixels = overlay(photograph[0], plane, strength=strength, scale=scale)
        axes.imshow(pixels, interpolation="nearest")
        axes.set_axis_off()
    elif values.ndim == 2 and table:
        names, rows = _shown_features(values, look.features)
        errors = _shown_errors(values, None if look.errors is None else look.errors[row])
        _draw_table(axes, rows[0], names, None if errors is None else errors[0], look)
        axes.invert_yaxis()
        axes.set_xlabel(look.unit, fontsize=8)
    elif values.ndim == 2:
        own = None if inputs is None else _channels_first(as_array(inputs)[row], values)[0]
        _draw_signal(axes, values[0], own, look)
    else:
        raise ValueError(
            f"expected a map of 1 or 2 axes to draw into ax, got one of {values.ndim - 1} axes. Fix: omit ax, or plot "
            "a slice of it"
        )
    axes.set_title(title, fontsize=9, loc="left")


def _lines(axes: Any, steps: np.ndarray, channels: np.ndarray) -> None:
    """Channels as lines: one in ink, several in greys."""
    shades = np.linspace(0.15, 0.6, len(channels))
    for shade, channel in zip(shades, channels, strict=True):
        axes.plot(steps, channel, color=str(shade), linewidth=1.0, zorder=2)
    low, high = float(channels.min()), float(channels.max())
    margin = 0.08 * (high - low) or 1.0
    axes.set_ylim(low - margin, high + margin)


def _curve(axes: Any, steps: np.ndarray, row: np.ndarray, signed: bool) -> None:
    axes.axhline(0, color=INK, linewidth=0.6)
    axes.plot(steps, row, color=INK, linewidth=0.9)
    parts = ((row > 0, 0.75), (row < 0, -0.75)) if signed else ((row > 0, None),)
    for where, sign in parts:
        colour = UNSIGNED if sign is None else signed_colours(np.array(sign))
        axes.fill_between(steps, row, where=where, color=colour, alpha=0.6, linewidth=0, interpolate=True)


def _shading(row: np.ndarray, signed: bool, cmap: str | None = None) -> np.ndarray:
    """(1, T, 4): the map's colours, the more opaque the larger."""
    scaled = normalized(row[None], signed=signed)
    colours = signed_colours(scaled, cmap) if signed else _unsigned(scaled, cmap)
    return np.concatenate([colours, 0.75 * np.abs(scaled)[..., None]], axis=-1)


def _unsigned(scaled: np.ndarray, cmap: str | None = None) -> np.ndarray:
    # The middle of the ramp: its dark end would hide the line, its pale end the ground.
    return sequential(0.45 + 0.3 * scaled) if cmap is None else sequential(scaled, cmap)


def _shading_bar(figure: Figure, grid: np.ndarray, values: np.ndarray, look: Look) -> None:
    """What the shading stands for; each sample has its own scale."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    ramp = np.linspace(-1 if look.signed else 0, 1, 256)[None]
    colours = signed_colours(ramp, look.cmap) if look.signed else _unsigned(ramp, look.cmap)
    alpha = 0.75 * np.abs(ramp)[..., None]
    shades = ListedColormap((colours * alpha + 1 - alpha)[0])
    for axes, row in zip(grid, values, strict=True):
        scale = scale_of(row[None], signed=look.signed)
        drawn = ScalarMappable(Normalize(scale.low, scale.high), shades)
        bar = figure.colorbar(drawn, ax=axes, fraction=0.03, pad=0.01, aspect=12)
        bar.set_ticks([scale.low, 0, scale.high] if look.signed else [scale.low, scale.high])
        bar.ax.set_yticklabels([f"{tick:.2g}".replace("-", "−") for tick in bar.get_ticks()], fontsize=7)
        bar.outline.set_visible(False)
        bar.ax.tick_params(length=2)


SIDES = ("front: strongest along depth", "top: strongest along height", "side: strongest along width")


def _volumes(values: np.ndarray, volumes: np.ndarray | None, look: Look) -> Figure:
    """Per sample three views along the axes: of what lies behind one another, the value of the greatest size."""
    rows: list[list[Captioned]] = []
    for index, value in enumerate(values):
        row: list[Captioned] = []
        for axis, side in enumerate(SIDES):
            plane = _strongest(value, axis)
            scale = scale_of(plane, look.unit, signed=look.signed, cmap=look.cmap)
            if volumes is None:
                pixels = heat_map(plane, signed=look.signed, cmap=look.cmap)
            else:
                ground = normalized(volumes[index].mean(axis=0).mean(axis=axis))
                strength = STRENGTH if look.alpha is None else look.alpha
                pixels = overlay(
                    np.repeat(ground[..., None], 3, axis=-1), plane, strength=strength, scale=scale
                )
            row.append((f"{look.sample(index)}, {side}", pixels, scale))
        rows.append(row)
    return panel(rows, title=look.title)


def _strongest(value: np.ndarray, axis: int) -> np.ndarray:
    """Along an axis, the value of the greatest size, with its sign."""
    at = np.abs(value).argmax(axis=axis, keepdims=True)
    strongest: np.ndarray = np.take_along_axis(value, at, axis).squeeze(axis)
    return strongest


def _plain(axes: Any) -> None:
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def _label(figure: Figure, look: Look, *, across: bool) -> None:
    """The title, and the unit along the axis of the values: the one across, or the one that stands."""
    if look.title:
        figure.suptitle(look.title, fontsize=11, x=0.01, ha="left")
    if look.unit:
        (figure.supxlabel if across else figure.supylabel)(look.unit, fontsize=8)
