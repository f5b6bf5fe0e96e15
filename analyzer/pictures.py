"""The pictures of results: per sample the photograph, an overlay per map and the chart of layers, as PNG.

Reads MethodResults and the model's inputs; gives Pictures by a short name, for files and for the HTML report. Inputs
that are no images have a chart and no overlay.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from analyzer.analysis import (
    FULL_GRAD,
    INTEGRATED_GRADIENTS,
    SIMPLE_FULL_GRAD,
    SMOOTH_FULL_GRAD,
    MethodResult,
)
from analyzer.figures.charts import Bar, contribution_chart
from analyzer.figures.heat import PIXELS, encode_png, enlarged, overlay, scale_of, smoothed
from analyzer.figures.images import photographs, to_planes
from analyzer.figures.report import Picture, format_value
from analyzer.methods.full_grad_result import layer_bars, layers_of

if TYPE_CHECKING:
    from converters.model import Preprocessing

COMPLETE_MAP = "full-grad-complete"
SIGNED_UNIT = "per pixel, smoothed"
SALIENCY_NOTES = {
    FULL_GRAD: (
        "FullGrad",
        "input term and bias terms by size, without sign; brighter is more",
    ),
    SIMPLE_FULL_GRAD: ("Simple FullGrad", "the gradients at every layer that has a bias; brighter is more"),
    SMOOTH_FULL_GRAD: ("Smooth FullGrad", "FullGrad averaged over noisy copies; brighter is more"),
}


def sample_pictures(
    results: Sequence[MethodResult],
    inputs: Mapping[str, np.ndarray],
    preprocessing: Preprocessing | None,
) -> list[dict[str, Picture]]:
    """Per sample the photograph and an overlay per map, by a short name; empty where there is no image.

    Where several inputs are images, each has its own, and names begin with the input's.
    """
    layout = preprocessing.layout if preprocessing else None
    drawn = {name: photographs(array, preprocessing) for name, array in inputs.items()}
    images = {name: found for name, found in drawn.items() if found is not None}
    pictures: list[dict[str, Picture]] = [{} for _ in next(iter(inputs.values()))]
    for name, shown in images.items():
        stem, suffix = (f"{name}-", f", {name}") if len(images) > 1 else ("", "")
        for index, photograph in enumerate(shown):
            found = {"photograph": Picture("Photograph", _png(photograph), "as the model sees it")}
            for result in results:
                found |= _overlays(result, name, index, photograph, layout)
            pictures[index] |= {
                stem + key: replace(picture, caption=picture.caption + suffix)
                for key, picture in found.items()
            }
    return pictures


def _overlays(
    result: MethodResult, name: str, index: int, photograph: np.ndarray, layout: str | None
) -> dict[str, Picture]:
    if result.method == INTEGRATED_GRADIENTS:
        plane = to_planes(result.attributions[name][index : index + 1], layout)
        assert plane is not None
        note = "red speaks for the class, blue against it"
        return {result.method: _signed("Integrated Gradients", photograph, smoothed(plane[0], PIXELS), note)}
    pictures = {}
    if name in result.attributions:
        size = to_planes(np.abs(result.attributions[name][index : index + 1]), layout)
        assert size is not None
        note = "|x · ∂f/∂x|, what falls to the pixels"
        pictures["input-term"] = _unsigned("Input term", photograph, size[0], note)
    if name in result.maps and result.maps[name].ndim == 3:
        caption, note = SALIENCY_NOTES[result.method]
        pictures[result.method] = _unsigned(caption, photograph, result.maps[name][index], note)
    if name in result.complete_maps and result.complete_maps[name].ndim == 3:
        plane = smoothed(result.complete_maps[name][index])
        note = f"red adds, blue takes away; {complete_sum(result, index)}"
        pictures[COMPLETE_MAP] = _signed("Complete map", photograph, plane, note)
    return pictures


def complete_sum(result: MethodResult, index: int) -> str:
    """What the complete maps of one sample sum to, and what they leave out."""
    assert result.unplaced_total is not None
    maps = [format_value(float(found[index].sum())) for found in result.complete_maps.values()]
    apart = format_value(float(result.unplaced_total[index]))
    names = ", ".join(result.unplaced) if len(result.unplaced) <= 2 else f"{len(result.unplaced)} tensors"
    rest = f"; {apart} ({names}) has no place in the image" if result.unplaced else ""
    return f"the map{'s' * (len(maps) > 1)} sum{'s' * (len(maps) == 1)} to {' and '.join(maps)}{rest}"


def _signed(caption: str, photograph: np.ndarray, plane: np.ndarray, note: str) -> Picture:
    scale = scale_of(plane, SIGNED_UNIT, signed=True)
    return Picture(caption, _png(overlay(photograph, plane, signed=True)), note, scale)


def _unsigned(caption: str, photograph: np.ndarray, plane: np.ndarray, note: str) -> Picture:
    return Picture(caption, _png(overlay(photograph, plane)), note, scale_of(plane))


def _png(pixels: np.ndarray) -> bytes:
    return encode_png(enlarged(pixels))


def result_bars(result: MethodResult, index: int) -> list[Bar]:
    """The input terms and every layer's contribution to one sample's output, in network order."""
    return layer_bars(result.input_totals, layers_of(result.shares), index)


def layer_chart(result: MethodResult, index: int, title: str = "") -> bytes:
    """The chart of layers of one sample, as a PNG."""
    figure = contribution_chart(
        result_bars(result, index), title=title, output=float(result.explained[index])
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
