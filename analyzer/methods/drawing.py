"""Draw a result: the figure of `plot`, and the picture that a notebook shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.images.files import pixels_of
from analyzer.methods.result import Attribution, chosen_input, refuse_ranked

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot(
    result: Attribution,
    images: Any,
    *,
    of: str | None = None,
    title: str | None = None,
    ax: Axes | None = None,
    sample: int | None = None,
    features: Sequence[str] | None = None,
    cmap: str | None = None,
    alpha: float | None = None,
    **how: Any,
) -> Figure:
    """Draw the map of a result. See `Attribution.plot`; how: options of `drawn`."""
    from analyzer.figures.canvas import shown_by_pyplot
    from analyzer.figures.plots import draw_input, plot_input

    refuse_ranked(result)
    if alpha is not None and not 0 <= alpha <= 1:
        raise ValueError(f"expected alpha from 0 to 1, got {alpha}. Fix: give alpha=0.9")
    name = chosen_input(result.by_tensor(result.map), of)
    values, look = result.drawn(name, **how)
    inputs = _inputs_of(result, name, images)
    table = result.is_table(name, inputs)
    inputs = _matched(inputs, values)
    if sample is not None and not -len(values) <= sample < len(values):
        raise ValueError(f"expected a sample below {len(values)}, got {sample}. Fix: give sample=0")
    samples = [caption(result, index) for index in range(len(values))]
    look = replace(
        look,
        title=_title(result, look.title, title, how),
        samples=samples,
        method=result.caption,
        cmap=cmap,
        alpha=alpha,
        features=features if features is not None else look.features,
    )
    if ax is not None:
        index = sample or 0
        label = samples[index] if title is None else title
        draw_input(ax, values, inputs, replace(look, title=label), table=table, sample=index)
        figure: Figure = ax.get_figure(root=True)  # type: ignore[assignment]
        return figure
    if sample is not None:
        row = slice(sample % len(values), sample % len(values) + 1)
        values, inputs = values[row], None if inputs is None else inputs[row]
        errors = None if look.errors is None else look.errors[row]
        look = replace(look, samples=samples[row], errors=errors)
    with shown_by_pyplot():
        return plot_input(values, inputs, look, table=table)


def _inputs_of(result: Attribution, name: str, images: Any) -> Any:
    """The inputs that a map lies over, with the samples along axis 0; None of an inner tensor."""
    from analyzer.types import as_array

    own = images.get(name) if isinstance(images, Mapping) else images
    if own is None:
        return None
    if _is_picture(own) or (isinstance(own, (list, tuple)) and own and all(map(_is_picture, own))):
        own = _pixels(own)
    arrangement = result.arrangement
    held = name or (next(iter((*arrangement.wrapped, *arrangement.spans)), "") if arrangement else "")
    return result.first(held, as_array(own))


def _is_picture(value: Any) -> bool:
    from PIL import Image

    return isinstance(value, Image.Image)


def _pixels(pictures: Any) -> np.ndarray:
    """Images of Pillow as a batch of pixels. Raises ValueError where their sizes differ."""
    pixels = [pixels_of(one) for one in (pictures if isinstance(pictures, (list, tuple)) else [pictures])]
    if len({one.shape for one in pixels}) > 1:
        raise ValueError("the images have different sizes. Fix: give onnxplain.load_images(images, model)")
    return np.stack(pixels)


def _matched(inputs: Any, values: np.ndarray) -> Any:
    """The inputs, of as many samples as the maps. Raises ValueError."""
    if inputs is None:
        return None
    if np.ndim(inputs) == 0 or np.asarray(inputs).dtype.kind not in "fiubV":
        raise ValueError(
            "expected images as arrays of numbers. Fix: give the inputs that were explained, such as "
            "onnxplain.load_images(paths, model)"
        )
    if len(values) == 1 and np.ndim(inputs) == values.ndim and values.ndim == 3 and len(inputs) != 1:
        # One image without an axis of samples.
        inputs = inputs[None]
    if len(inputs) != len(values):
        raise ValueError(
            f"expected the inputs of the {len(values)} samples that were explained, got {len(inputs)}. Fix: cut "
            f"the result, too, as in result[:{len(inputs)}].plot(images[:{len(inputs)}]), or give all of them"
        )
    if values.ndim == 3 and np.ndim(inputs) == 4:
        sides = [np.shape(inputs)[1:3], np.shape(inputs)[2:4]]
        whole = values.shape[1:]
        if not any(a * whole[1] == b * whole[0] for a, b in sides):
            raise ValueError(
                f"images of shape {np.shape(inputs)} do not have the proportions of the maps {whole}. Fix: give the "
                "inputs that were explained, such as onnxplain.load_images(paths, model)"
            )
    return inputs


def _title(result: Attribution, of: str, title: str | None, how: Mapping[str, Any]) -> str:
    if title is not None:
        return title
    caption = f"{result.caption}, complete" if how.get("complete") else result.caption
    return f"{caption}: {of}" if of else caption


def caption(result: Attribution, sample: int) -> str:
    """Return what a sample is called in a figure: its class where the model names it, else its number."""
    name = result.class_of(sample)
    known = result.class_names is not None or bool(result.classes)
    return f"{sample}: {name}" if known and name else f"sample {sample}"


def thumbnail(result: Attribution, most: int = 4) -> bytes | None:
    """Return a PNG of the first samples, without the inputs; None where nothing can be drawn."""
    from analyzer.figures.canvas import png_of
    from analyzer.figures.plots import plot_input

    if np.ndim(result.output) == 2:
        result = result.of_each_class[0]
    name = chosen_input(result.by_tensor(result.map), None)
    values, look = result.drawn(name)
    if not 2 <= values.ndim <= 4 or 0 in values.shape:
        return None
    samples = [caption(result, index) for index in range(len(values))][:most]
    errors = None if look.errors is None else look.errors[:most]
    look = replace(look, samples=samples, errors=errors)
    return png_of(plot_input(values[:most], None, look, table=result.is_table(name, None)))
