"""Make the example of an ONNX model: what the user gives, by input name, or noise of the declared shapes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx
from onnx import helper

from converters.errors import ConversionError, ExampleNeeded, one_line
from converters.graph.tensors import shape_of

if TYPE_CHECKING:
    from converters.model import Preprocessing

Found = TypeVar("Found")


def example_of(infos: dict[str, onnx.ValueInfoProto], example: Any) -> dict[str, np.ndarray]:
    """Return the example by input name; where none is given, noise of the declared shapes (2 samples, 32 pixels).

    Raises ConversionError for other names, and for values that are not numbers.
    """
    if example is None:
        rng = np.random.default_rng(0)
        shapes = [shape_of(info.type) or () for info in infos.values()]
        # The samples may lie along another axis of another input, as in the state of a recurrent network.
        samples = {shape[0] for shape in shapes if shape and isinstance(shape[0], str)}
        return {name: _noise(info, rng, samples) for name, info in infos.items()}
    refuse_shape(example)
    if isinstance(example, dict):
        given = {name: np.asarray(value) for name, value in example.items()}
    else:
        values = example if isinstance(example, (tuple, list)) else (example,)
        named = [*infos, *(f"array {index + 1}" for index in range(len(infos), len(values)))]
        given = dict(zip(named, (np.asarray(value) for value in values), strict=False))
    if given.keys() != infos.keys():
        raise ConversionError(
            f"the example has {sorted(given)}; the model's inputs are {sorted(infos)}. Fix: give a dict with one "
            "array for each input, as in convert(model, {name: array})"
        )
    if strange := [name for name, array in given.items() if array.dtype.kind in "OSU"]:
        raise ConversionError(
            f"the example of {strange[0]!r} holds no numbers. Fix: give an array of numbers"
        )
    return {
        name: array.astype(helper.tensor_dtype_to_np_dtype(infos[name].type.tensor_type.elem_type))
        for name, array in given.items()
    }


def refuse_shape(example: Any) -> None:
    """Raise ConversionError where the example is a shape, or a number, in place of an array of that shape."""
    values = example if isinstance(example, (tuple, list)) else (example,)
    if values and all(isinstance(value, int) for value in values):
        axes = ", ".join(map(str, values))
        raise ConversionError(
            f"expected the example as an array, got {'the shape ' if len(values) > 1 else ''}{example!r}. Fix: give an "
            f"array of the model's inputs, such as numpy.zeros(({axes}{',' * (len(values) == 1)}), 'float32')"
        )


def on_images(convert: Callable[[Any], Found], preprocessing: Preprocessing) -> Found:
    """Return what `convert` makes of an example: noise of the size, layout and channels that a preprocessing states.

    Raises ExampleNeeded where the network does not take such an image.
    """
    stated = max(len(preprocessing.mean), len(preprocessing.std))
    # One number is for all channels; the default of three also comes with grey images.
    refusals: list[ConversionError] = []
    for channels in dict.fromkeys((3 if stated == 1 else stated, 1)):
        try:
            return convert(_image_noise(preprocessing, channels))
        except ConversionError as error:
            refusals.append(error)
    size = " x ".join(map(str, preprocessing.size))
    raise ExampleNeeded(
        f"the network was given without an example, and it does not take an image of the stated size {size} "
        f"({one_line(refusals[0], 160)}). Fix: give an `example` input (--example FILE), or return (net, example) "
        "from the factory"
    ) from refusals[0]


def _image_noise(preprocessing: Preprocessing, channels: int) -> np.ndarray:
    """Two images of random pixels, scaled as the preprocessing states."""
    pixels = np.random.default_rng(0).random((2, *preprocessing.size, channels))
    try:
        scaled = (pixels - np.asarray(preprocessing.mean)) / np.asarray(preprocessing.std)
    except ValueError:
        scaled = pixels
    scaled = scaled[..., :channels].astype(np.float32)
    return scaled if preprocessing.layout == "NHWC" else np.moveaxis(scaled, -1, 1)


def _noise(info: onnx.ValueInfoProto, rng: np.random.Generator, samples: Collection[str]) -> np.ndarray:
    shape = shape_of(info.type) or ()
    sizes = [
        size if isinstance(size, int) else (32 if axis and size not in samples else 2)
        for axis, size in enumerate(shape)
    ]
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    if np.dtype(dtype).kind in "iub":
        return rng.integers(0, 2, sizes).astype(dtype)
    return rng.standard_normal(sizes).astype(dtype)
