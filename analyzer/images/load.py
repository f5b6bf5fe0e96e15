"""Load images for a model: paths, folders, patterns, images of Pillow and arrays of pixels become one batch.

The size, the layout and the normalisation come from the preprocessing that the model stores. Refuses what is no image,
and models that store no preprocessing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from analyzer.errors import InputError, ShapeError
from analyzer.graph.channel_axis import shape_with_channels
from analyzer.graph.graph import Graph, Tensor
from analyzer.images.files import pixels_of, pixels_of_bytes, read_pixels
from analyzer.images.folders import files_of
from analyzer.images.preprocess import CHANNELS, image_layout, preprocess
from analyzer.types import as_array
from converters import Model, Preprocessing, load
from converters.errors import one_line
from converters.model import UNREAD_KEY
from converters.sources.pytorch import is_pytorch
from converters.system.arguments import named_arguments

# A sample of whole numbers is rounded to them; more than this is not rounding.
_ROUNDING = 0.01


@named_arguments
def load_images(
    images: Any, model: Any = None, *, preprocessing: Preprocessing | None = None, name: str | None = None
) -> np.ndarray:
    """Return a batch of images as a model takes it, (N, C, H, W) or (N, H, W, C), in the order given.

    images: a path, a folder, a pattern such as "photos/*.jpg", an image of Pillow, an array of uint8 pixels
        (H, W, 3) or of floats in [0, 1], a batch of such arrays, or a list of any of these. Files of a folder and of
        a pattern are sorted by name, numbers by value; `image_files` returns their paths in the same order.
    model: what `convert` or `load` returned, a Differentiable, or the path of an .onnx file. Its preprocessing gives
        size, layout, mean and std; its input gives the channels and the type of number.
    preprocessing: in place of the one that the model stores; `model` may then be omitted.
    name: the input that takes the images, where several do.
    Raises InputError, with the file's name, for what is missing or no image, and where no preprocessing is known;
    ShapeError where the preprocessing does not fit the model's input.
    """
    known = input_of(model, preprocessing, name)
    sources = list(_each(images))
    if not sources:
        raise InputError("expected at least one image, got none. Fix: give a path, a folder or an array")
    batch: np.ndarray | None = None
    for index, source in enumerate(sources):
        sample = known.sample(source)
        if batch is None:
            batch = np.empty((len(sources), *sample.shape), sample.dtype)
        batch[index] = sample
    assert batch is not None
    return batch


def image_files(images: Any) -> list[Path]:
    """Return the image files of a path, a folder, a pattern, or a list of these, in the order of `load_images`.

    Raises InputError for a path that does not exist, and a folder or pattern without an image.
    """
    if not isinstance(images, (str, os.PathLike)) and not _is_list(images):
        raise InputError(
            f"expected a path, a folder, a pattern or a list of paths, got {type(images).__name__}. Fix: give the "
            "path of an image or of a folder"
        )
    return [file for one in _flat(images) for file in image_files_of(one)]


def image_files_of(path: Any) -> list[Path]:
    """Return the files of one path. Raises InputError for another object."""
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"expected paths, got {type(path).__name__}. Fix: give the paths of image files")
    return files_of(path)


@dataclass(frozen=True)
class ImageInput:
    """An input that takes images: how a photograph becomes a sample, and of what type and shape.

    channels: 1 or 3. tensor: the model's input; None where only a preprocessing is known.
    """

    preprocessing: Preprocessing
    channels: int = 3
    tensor: Tensor | None = None

    def sample(self, source: Any) -> np.ndarray:
        """Return one sample, without the batch axis, of a path, the bytes of a file, an image or an array of pixels."""
        where = f"{os.fspath(source)}: " if isinstance(source, (str, os.PathLike)) else ""
        try:
            pixels = read_pixels(source) if where else to_pixels(source)
        except ValueError as error:
            raise InputError(str(error)) from error
        try:
            sample = preprocess(pixels, self.preprocessing, self.channels)
        except ValueError as error:
            raise InputError(f"{where}{error}") from error
        return sample if self.tensor is None else _typed(sample, self.tensor)


def input_of(model: Any, preprocessing: Preprocessing | None, name: str | None = None) -> ImageInput:
    """Return the input of a model that takes images. Raises InputError where there is none, or none is known."""
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        raise InputError(
            f"expected preprocessing as a Preprocessing, got {preprocessing!r}. Fix: give "
            "onnxplain.Preprocessing((224, 224))"
        )
    if model is None or isinstance(model, Preprocessing):
        known = preprocessing or model
        if known is None:
            raise InputError(
                "expected a model that stores how its images are read, got None. Fix: give the model, or "
                "preprocessing=onnxplain.Preprocessing((224, 224), mean, std)"
            )
        return ImageInput(known)
    loaded = _model(model)
    known = preprocessing or loaded.preprocessing
    if known is None and (reason := loaded.metadata.get(UNREAD_KEY)):
        raise InputError(
            f"{reason}. Fix: give preprocessing=onnxplain.Preprocessing((224, 224), mean, std), or arrays to the model"
        )
    if known is None:
        raise InputError(
            "the model stores no preprocessing, so that the size, mean and std of its images are unknown. Fix: give "
            "preprocessing=onnxplain.Preprocessing((224, 224), mean, std), or store it with "
            "onnxplain.convert(model, preprocessing=…) (onnxplain convert --size 224 --mean … --std …)"
        )
    tensor = _image_tensor(Graph.from_proto(loaded.light), name)
    assert tensor.shape is not None
    channels = tensor.shape[1 if known.layout == "NCHW" else 3]
    if channels not in (1, 3) and isinstance(channels, int):
        raise InputError(
            f"the input {tensor.name!r} takes {channels} channels, an image has 1 or 3. Fix: make the array in your "
            "own code"
        )
    return ImageInput(known, channels if isinstance(channels, int) else 3, tensor)


def _model(model: Any) -> Model:
    """The Model of what users hold."""
    # A Differentiable, whose layer is above this one.
    held = getattr(model, "model", None)
    if isinstance(held, Model):
        return held
    if isinstance(model, (str, os.PathLike, ModelProto)):
        return load(model, verify=False, run=False)
    if isinstance(model, Model):
        return model
    if is_pytorch(model) or callable(model):
        raise InputError(
            f"{type(model).__name__} does not say how its images are read. Fix: model = onnxplain.convert(network, "
            "example, preprocessing=onnxplain.Preprocessing((224, 224), mean, std)), and give that model"
        )
    raise InputError(
        f"expected a model, got {type(model).__name__}. Fix: give what onnxplain.convert or onnxplain.load returned"
    )


def _image_tensor(graph: Graph, name: str | None) -> Tensor:
    """The input that takes images."""
    if name is not None and name not in graph.inputs:
        raise InputError(f"the model has no input {name!r}. Fix: choose from {', '.join(graph.inputs)}")
    names = [one for one in graph.inputs if name in (None, one)]
    tensors = [replace(graph.tensors[one], shape=shape_with_channels(graph, one)) for one in names]
    found = [one for one in tensors if one.shape is not None and len(one.shape) == 4]
    if len(found) > 1:
        like = [one for one in found if image_layout(one.shape or ()) is not None]
        found = like if len(like) == 1 else found
    if len(found) != 1:
        shapes = ", ".join(f"{one.name} {one.shape}" for one in tensors)
        fix = "name the input, name=…" if found else "give arrays to this model"
        raise InputError(f"expected one input that takes images, the model has {shapes}. Fix: {fix}")
    return found[0]


def _typed(sample: np.ndarray, tensor: Tensor) -> np.ndarray:
    """A sample in the type of an input, whose shape it must have."""
    assert tensor.shape is not None
    wanted = tensor.shape[1:]
    if any(isinstance(want, int) and want != have for want, have in zip(wanted, sample.shape, strict=True)):
        raise ShapeError(
            f"the preprocessing gives images {sample.shape}, the input {tensor.name!r} takes {wanted}. Fix: give "
            "preprocessing=onnxplain.Preprocessing of this size and layout"
        )
    if tensor.is_float:
        return sample.astype(tensor.dtype, copy=False)
    whole = np.round(sample)
    if np.abs(whole - sample).max(initial=0) > _ROUNDING or sample.max(initial=0) <= 1:
        raise InputError(
            f"the input {tensor.name!r} takes {tensor.dtype}, the preprocessing gives fractions. Fix: give "
            "preprocessing=onnxplain.Preprocessing(size, std=(1 / 255,) * 3) (--std 1/255), which keeps pixels from 0 "
            "to 255"
        )
    return whole.astype(tensor.dtype)


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, (bytes, dict)) and not _is_array(value)


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") or hasattr(value, "getbands")


def _flat(images: Any) -> Iterator[Any]:
    """Every path, image and array of nested lists."""
    if isinstance(images, (str, os.PathLike)) or not _is_list(images):
        yield images
        return
    for one in images:
        yield from _flat(one)


def _each(images: Any) -> Iterator[Any]:
    """One source for each sample: the files of folders and patterns, the images of a batch."""
    for one in _flat(images):
        if isinstance(one, (str, os.PathLike)):
            yield from files_of(one)
        elif hasattr(one, "shape") and len(one.shape) == 4:
            yield from as_array(one)
        else:
            yield one


def to_pixels(value: Any) -> np.ndarray:
    """RGB pixels, uint8 or float32 in [0, 1], of bytes, an image of Pillow or an array. Raises ValueError."""
    from PIL import Image

    if isinstance(value, bytes):
        return pixels_of_bytes(value)
    if isinstance(value, Image.Image):
        try:
            return pixels_of(value)
        except OSError as error:  # a truncated file that is decoded only now
            raise ValueError(
                f"the image cannot be decoded ({one_line(error)}). Fix: save it again as .png"
            ) from error
    if not hasattr(value, "shape"):
        raise ValueError(
            f"expected a path, an image of Pillow or an array of pixels, got {type(value).__name__}. Fix: give one of "
            "them, or a list"
        )
    array = as_array(value)
    if array.ndim == 3 and array.shape[-1] not in CHANNELS and array.shape[0] in CHANNELS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in CHANNELS) or not array.size:
        raise ValueError(
            f"expected pixels (height, width, 3), got an array {tuple(array.shape)}. Fix: give one image of 1, 3 or 4 "
            "channels, or a batch (N, height, width, 3)"
        )
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.dtype == np.uint8:
        return pixels_of(Image.fromarray(np.ascontiguousarray(array)))
    return _float_pixels(array)


def _float_pixels(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind != "f" or not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        spread = f", from {array.min():g} to {array.max():g}" if array.dtype.kind in "iuf" else ""
        raise ValueError(
            f"expected pixels of uint8, or floats from 0 to 1, got {array.dtype}{spread}. Fix: give "
            "pixels.astype('uint8'), or the array itself to the model where it is normalised already"
        )
    if array.ndim == 3 and array.shape[-1] == 4:
        raise ValueError(
            "expected float pixels of 1 or 3 channels, got 4. Fix: give pixels[..., :3], or uint8 pixels with alpha"
        )
    return np.asarray(array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=-1), np.float32)
