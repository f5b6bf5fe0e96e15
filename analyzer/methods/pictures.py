"""The pictures of results: per sample the photograph, an overlay per map and the chart of layers, as PNG.

Reads results and the model's inputs; gives Pictures by a short name, for files and for the HTML report. Tables,
signals and volumes have maps and attributions in their own form; other inputs have the chart alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analyzer.figures.canvas import png_of
from analyzer.figures.charts import Bar, contribution_chart
from analyzer.figures.ground import Ground
from analyzer.figures.heat import (
    PIXELS,
    Scale,
    encode_png,
    enlarged,
    overlay,
    scale_of,
    smoothed,
)
from analyzer.figures.images import photographs, to_planes
from analyzer.figures.numbers import format_value
from analyzer.figures.picture import Picture
from analyzer.figures.plots import Look, plot_input
from analyzer.methods.full_gradient.result import FullGrad, layer_bars, layers_of
from analyzer.methods.registry import METHODS
from analyzer.methods.result import Attribution

if TYPE_CHECKING:
    from converters.model import Preprocessing

Grounds = Sequence[Ground | None]
COMPLETE_MAP = "full-grad-complete"
# Of inputs other than images: tables (N, features), signals (N, C, T) and volumes (N, C, D, H, W).
DRAWN_RANKS = (2, 3, 5)
SIGNED_UNIT = "per pixel, smoothed"
STRONGEST = 0.1


def sample_pictures(
    results: Sequence[Attribution],
    inputs: Mapping[str, np.ndarray],
    preprocessing: Preprocessing | None,
    grounds: Grounds = (),
) -> list[dict[str, Picture]]:
    """Per sample, by a short name: of an image the photograph and an overlay per map, of a signal, a volume or a table
    maps and attributions in their own form.

    Where several inputs have pictures, the names begin with the input's.
    grounds: of each sample what is drawn over in place of the input; None for the input.
    """
    layout = preprocessing.layout if preprocessing else None
    by_input = {}
    for name, array in inputs.items():
        shown = photographs(array, preprocessing)
        if shown is not None:
            own = _grounds(shown, grounds)
            by_input[name] = [_of_image(results, name, k, ground, layout) for k, ground in enumerate(own)]
        elif array.ndim in DRAWN_RANKS:
            by_input[name] = [_of_values(results, name, k, array) for k in range(len(array))]
    drawn = {name: found for name, found in by_input.items() if any(found)}
    pictures: list[dict[str, Picture]] = [{} for _ in next(iter(inputs.values()))]
    for name, found in drawn.items():
        stem, suffix = (f"{name}-", f", {name}") if len(drawn) > 1 else ("", "")
        for mine, all_of_sample in zip(found, pictures, strict=True):
            all_of_sample |= {
                stem + key: replace(picture, caption=picture.caption + suffix)
                for key, picture in mine.items()
            }
    return pictures


def _of_image(
    results: Sequence[Attribution], name: str, index: int, ground: Ground, layout: str | None
) -> dict[str, Picture]:
    found = {"photograph": Picture("Photograph", _png(ground.photograph), ground.note)}
    for result in results:
        found |= _overlays(result, name, index, ground, layout)
    return found


def _grounds(photographs_of: np.ndarray, given: Grounds) -> list[Ground]:
    """What each sample's maps are drawn over."""
    chosen = given or [None] * len(photographs_of)
    return [own or Ground(photo) for own, photo in zip(chosen, photographs_of, strict=True)]


def _of_values(
    results: Sequence[Attribution], name: str, index: int, array: np.ndarray
) -> dict[str, Picture]:
    """Return the pictures of an input other than an image: its maps, or its attributions summed over channels."""
    row, found = slice(index, index + 1), {}
    for result in results:
        maps = result.by_tensor(result.maps)
        values = maps.get(name) if maps else _summed(result, name)
        if values is not None:
            entry, signed = METHODS[result.method], result.signed
            unit = "units of the output, per element" if signed else "saliency, without unit"
            caption = caption_of(result, index)
            look = Look(unit=unit, signed=signed, samples=(caption,))
            png = png_of(plot_input(values[row], array[row], look, table=array.ndim == 2))
            found[file_name_of(result, index)] = Picture(caption, png, entry.note)
        if isinstance(result, FullGrad) and name in (complete := result.by_tensor(result.complete_map)):
            look = Look(unit="units of the output, per element", signed=True, samples=("Complete map",))
            png = png_of(plot_input(complete[name][row], array[row], look, table=array.ndim == 2))
            note = f"red adds, blue takes away; {complete_sum(result, index)}"
            found[COMPLETE_MAP] = Picture("Complete map", png, note)
    return found


def _summed(result: Attribution, name: str) -> np.ndarray | None:
    """The attributions of an input summed over its channels, (N, *spatial); None where these are not known."""
    attributions = result.by_tensor(result.attributions)
    if name not in attributions or name not in result.channel_axes:
        return None
    values = attributions[name]
    summed: np.ndarray = values.sum(axis=result.channel_axes[name]) if values.ndim > 2 else values
    return summed


def _overlays(
    result: Attribution, name: str, index: int, ground: Ground, layout: str | None
) -> dict[str, Picture]:
    entry, pictures = METHODS[result.method], {}
    complete = {}
    if isinstance(result, FullGrad):
        complete = result.by_tensor(result.complete_map)
        term = result.by_tensor(result.input_term)[name] if name in result.input_totals else None
    else:
        term = None
    if term is not None:
        size = to_planes(np.abs(term[index : index + 1]), layout)
        assert size is not None
        note = "|x · ∂f/∂x|, what falls to the pixels"
        pictures["input-term"] = _unsigned("Input term", ground, size[0], note)
    plane = _plane(result, name, index, layout)
    key, caption = file_name_of(result, index), caption_of(result, index)
    if plane is not None and result.signed:
        pictures[key] = _signed(caption, ground, smoothed(plane, PIXELS), entry.note)
    elif plane is not None:
        pictures[key] = _unsigned(caption, ground, plane, f"{entry.note}; brighter is more")
    if name in complete and complete[name].ndim == 3:
        assert isinstance(result, FullGrad)
        plane = smoothed(complete[name][index])
        note = f"red adds, blue takes away; {complete_sum(result, index)}"
        pictures[COMPLETE_MAP] = _signed("Complete map", ground, plane, note)
    return pictures


def on_one_scale(
    results: Sequence[Attribution],
    inputs: Mapping[str, np.ndarray],
    preprocessing: Preprocessing | None,
    grounds: Grounds = (),
) -> list[list[Picture]]:
    """Per sample, all methods' maps over an image by rank, in the same colours; none of a single map.

    A pixel's rank is the share of the image where the size of the map, smoothed, is smaller.
    """
    layout = preprocessing.layout if preprocessing else None
    images = {name: photographs(array, preprocessing) for name, array in inputs.items()}
    shown = {name: pixels for name, pixels in images.items() if pixels is not None}
    if len(shown) != 1:
        return [[] for _ in next(iter(inputs.values()))]
    ((name, photos),) = shown.items()
    own = _grounds(photos, grounds)
    return [_ranked(results, name, index, ground, layout) for index, ground in enumerate(own)]


def _ranked(
    results: Sequence[Attribution], name: str, index: int, ground: Ground, layout: str | None
) -> list[Picture]:
    sizes = {}
    for result in results:
        plane = _plane(result, name, index, layout)
        if plane is None or not np.isfinite(plane).all() or not plane.any():
            continue
        caption = caption_of(result, index)
        size = ground.cut(smoothed(np.abs(plane.astype(np.float64))))
        sizes[title_of(result, index) if caption in sizes else caption] = size
    if len(sizes) < 2:
        return []
    # The weaker half stays dark, so that the stronger half has all colours.
    scale = Scale(0.5, 1.0, signed=False)
    pictures = []
    for caption, size in sizes.items():
        ranks = np.searchsorted(np.sort(size, axis=None), size) / size.size
        strongest = size[ranks >= 1 - STRONGEST].sum() / size.sum()
        note = f"its strongest tenth holds {100 * strongest:.0f} % of the map"
        pictures.append(Picture(caption, _png(overlay(ground.photograph, ranks, scale=scale)), note, scale))
    return pictures


def _plane(result: Attribution, name: str, index: int, layout: str | None) -> np.ndarray | None:
    """Return the plane (H, W) that is drawn over an image: the map, else the attributions summed over channels."""
    maps = result.by_tensor(result.maps)
    if maps:
        found = maps.get(name)
        return found[index] if found is not None and found.ndim == 3 else None
    attributions = result.by_tensor(result.attributions)
    if name not in attributions:
        return None
    planes = to_planes(attributions[name][index : index + 1], layout)
    return None if planes is None else planes[0]


def caption_of(result: Attribution, index: int) -> str:
    """The caption of one sample's picture or text, with its class where there are several."""
    return f"{result.caption}: {result.classes[index]}" if result.classes else result.caption


def title_of(result: Attribution, index: int) -> str:
    """The label of one sample's result, with its class where there are several."""
    return ", ".join(filter(None, [caption_of(result, index), result.detail]))


def file_name_of(result: Attribution, index: int) -> str:
    """The name of one sample's picture, "integrated-gradients-281-tabby" where there are several classes."""
    if not result.classes:
        return result.method
    assert result.target is not None
    number, name = int(result.target[index]), re.sub(r"[^\w.-]+", "-", result.classes[index]).strip("-.")
    return f"{result.method}-{name}" if name == f"class-{number}" else f"{result.method}-{number}-{name}"


def complete_sum(result: FullGrad, index: int) -> str:
    """Return a sentence with the sums of one sample's complete maps and the terms without a position."""
    complete = result.by_tensor(result.complete_map)
    maps = [format_value(float(found[index].sum())) for found in complete.values()]
    apart = format_value(float(result.unplaced_total[index]))
    names = ", ".join(result.unplaced) if len(result.unplaced) <= 2 else f"{len(result.unplaced)} tensors"
    where = "image" if all(found.ndim == 3 for found in complete.values()) else "input"
    rest = (
        f"; {apart} more belongs to no place in the {where}: it comes from {names}" if result.unplaced else ""
    )
    return f"the map{'s' * (len(maps) > 1)} sum{'s' * (len(maps) == 1)} to {' and '.join(maps)}{rest}"


def _signed(caption: str, ground: Ground, plane: np.ndarray, note: str) -> Picture:
    plane = ground.cut(plane)
    scale = scale_of(plane, SIGNED_UNIT, signed=True)
    return Picture(caption, _png(overlay(ground.photograph, plane, signed=True)), note, scale)


def _unsigned(caption: str, ground: Ground, plane: np.ndarray, note: str) -> Picture:
    plane = ground.cut(plane)
    return Picture(caption, _png(overlay(ground.photograph, plane)), note, scale_of(plane))


def _png(pixels: np.ndarray) -> bytes:
    return encode_png(enlarged(pixels))


def result_bars(result: FullGrad, index: int) -> list[Bar]:
    """The input terms and every layer's contribution to one sample's output, in network order."""
    return layer_bars(result.input_totals, layers_of(result.contributions), index)


def layer_chart(result: FullGrad, index: int, title: str = "") -> bytes:
    """The chart of layers of one sample, as a PNG."""
    return png_of(
        contribution_chart(
            result_bars(result, index), title=title, output=float(result.completeness.output[index])
        )
    )
