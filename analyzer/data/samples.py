"""Samples of a model from the columns of a batch: arrays, pixels, the bytes of image files, and paths of images.

From a Differentiable and a batch {column: array} to samples whose arrays are checked one by one, and the reason of each
sample that cannot be read. Refuses batches without the columns of the model's inputs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from analyzer.backends.differentiable import Differentiable
from analyzer.backends.inputs import check_inputs
from analyzer.data.columns import ERROR, TARGET
from analyzer.errors import AnalysisError, InputError
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.channel_axis import shape_with_channels
from analyzer.images.load import ImageInput, input_of
from analyzer.types import Arrays, as_array
from converters.errors import one_line

Columns = Mapping[str, Any]
"""A batch of samples: {column: a value for each sample}, as an array or a list."""


@dataclass
class Samples:
    """The samples of a batch.

    arrays: of each sample {input: array}, None where it could not be read. targets: the class of each sample, None
    where the batch names none. errors: of each sample, "" where there is none. passed: the columns that are returned
    as they are. fixed: whether all samples of the data set have arrays of one shape.
    """

    arrays: list[Arrays | None]
    targets: list[Any] | None
    errors: list[str]
    passed: dict[str, Any]
    fixed: bool = True

    def __len__(self) -> int:
        return len(self.arrays)

    def groups(self, alone: Sequence[str] | None) -> Iterator[list[int]]:
        """Yield the samples that can be explained together: of one shape, with the same values of shared inputs.

        alone: the inputs without an axis of samples; None where each sample is a call of its own.
        """
        found: dict[Any, list[int]] = {}
        for row, arrays in enumerate(self.arrays):
            if arrays is None:
                continue
            key: Any = row
            if alone is not None:
                key = tuple(
                    (name, array.shape, array.tobytes() if name in alone else b"")
                    for name, array in arrays.items()
                )
            found.setdefault(key, []).append(row)
        yield from found.values()


@dataclass
class SampleReader:
    """How the columns of a batch become the inputs of a model.

    column: of the only input, where it has another name. one_array: whether arrays of one batch, which have one shape,
    are those of the whole data set.
    """

    fn: Differentiable
    column: str | None = None
    keep_inputs: bool = False
    one_array: bool = True
    _images: dict[str, ImageInput] = field(default_factory=dict)

    @property
    def alone(self) -> list[str] | None:
        """The inputs without an axis of samples; None where no input has one, and each sample is a call."""
        batched = batched_inputs(self.fn.graph)
        return [name for name in self.fn.graph.inputs if name not in batched] if batched else None

    def read(self, batch: Columns) -> Samples:
        """Return the samples of a batch. Raises AnalysisError where columns are missing or have different lengths."""
        if not isinstance(batch, Mapping):
            raise AnalysisError(
                f"expected a batch {{column: array}}, got {type(batch).__name__}. Fix: give a dict of arrays"
            )
        columns = self._columns(batch)
        counts = {name: len(values) for name, values in batch.items()}
        if len(set(counts.values())) > 1:
            raise AnalysisError(
                f"the columns of the batch have different lengths: {counts}. Fix: give a value for each sample"
            )
        rows = next(iter(counts.values()), 0)
        errors = [_text(one) for one in batch[ERROR]] if ERROR in batch else [""] * rows
        targets = [_plain(one) for one in batch[TARGET]] if TARGET in batch else None
        fixed = all(self._is_fixed(name, batch[column], errors) for name, column in columns.items())
        arrays: list[Arrays | None] = [None] * rows
        for row in (row for row in range(rows) if not errors[row]):
            try:
                arrays[row] = self._sample({name: batch[column][row] for name, column in columns.items()})
            except (InputError, OSError, MemoryError) as error:
                errors[row] = one_line(error)
        taken = {ERROR, TARGET, *(() if self.keep_inputs else columns.values())}
        passed = {name: values for name, values in batch.items() if name not in taken}
        return Samples(arrays, targets, errors, passed, fixed)

    def _columns(self, batch: Columns) -> dict[str, str]:
        """{input: column}. Raises AnalysisError for an input without a column."""
        names = self.fn.graph.inputs
        if len(names) == 1:
            others = [name for name in batch if name not in (TARGET, ERROR)]
            column = self.column or (names[0] if names[0] in batch or len(others) != 1 else others[0])
            found = {names[0]: column}
        else:
            found = {name: name for name in names}
        for name, column in found.items():
            if column not in batch:
                fix = (
                    f"name it, column={next(iter(batch), 'image')!r}"
                    if len(names) == 1
                    else "rename a column"
                )
                raise AnalysisError(
                    f"the batch has no column {column!r} for the input {name!r}, it has {', '.join(map(repr, batch))}. "
                    f"Fix: {fix}"
                )
        return found

    def _sample(self, values: Mapping[str, Any]) -> Arrays:
        """The arrays of one sample, checked. Raises InputError."""
        graph, batched = self.fn.graph, batched_inputs(self.fn.graph)
        arrays = {name: self._array(name, value) for name, value in values.items()}
        rows = {name: array[None] if name in batched else array for name, array in arrays.items()}
        feeds = check_inputs(graph, rows)
        return {name: array[0] if name in batched else array for name, array in feeds.items()}

    def _array(self, name: str, value: Any) -> np.ndarray:
        """One sample of an input, from an array, pixels or an image file."""
        source = _image_source(value)
        if source is not None:
            return self._image(name).sample(source)
        try:
            array = as_array(value)
        except ValueError as error:
            raise InputError(
                f"the input {name!r} takes numbers, got rows of different lengths. Fix: give one array for each sample"
            ) from error
        if array.dtype == object:
            array = _stacked(name, array)
        return self._image(name).sample(array) if self._is_pixels(name, array) else array

    def _is_pixels(self, name: str, array: np.ndarray) -> bool:
        """Whether an array holds the pixels of a photograph, which the preprocessing brings into the model's form."""
        if array.dtype != np.uint8 or array.ndim not in (2, 3) or self.fn.model.preprocessing is None:
            return False
        tensor = self.fn.graph.tensors[name]
        shape = None if tensor.shape is None else tensor.shape[1:]
        return tensor.dtype != np.uint8 or array.shape != shape

    def _image(self, name: str) -> ImageInput:
        """The input as one of images. Raises AnalysisError, as all samples are images, where it is none."""
        if name not in self._images:
            try:
                self._images[name] = input_of(self.fn, None, name)
            except InputError as error:
                raise AnalysisError(str(error)) from error
        return self._images[name]

    def _is_fixed(self, name: str, values: Any, errors: Sequence[str]) -> bool:
        """Whether all samples have one shape: that of the model, of its preprocessing, or of one array of them."""
        shape = shape_with_channels(self.fn.graph, name)
        free = () if shape is None else shape[1 if name in batched_inputs(self.fn.graph) else 0 :]
        if shape is not None and all(isinstance(size, int) for size in free):
            return True
        array = values if isinstance(values, np.ndarray) else None
        first = next((value for value, error in zip(values, errors, strict=False) if not error), None)
        image = _image_source(first) is not None or (
            isinstance(first, np.ndarray) and self._is_pixels(name, first)
        )
        return image or (self.one_array and array is not None and array.dtype != object)


def _image_source(value: Any) -> Any:
    """What an image is read from: bytes, a path, an image of Pillow; None where the value is something else."""
    if isinstance(value, Mapping) and ("bytes" in value or "path" in value):
        # The layout of images in Hugging Face data sets.
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, (bytes, str, os.PathLike)) or hasattr(value, "getbands"):
        return value
    return None


def _stacked(name: str, array: np.ndarray) -> np.ndarray:
    """An array of arrays, as nested lists come from Arrow, as one array."""
    try:
        parts = [_stacked(name, one) if _is_nested(one) else one for one in array]
        found = np.stack([np.asarray(one) for one in parts])
    except (ValueError, TypeError) as error:
        raise InputError(
            f"the input {name!r} takes numbers, got {type(next(iter(array.flat), None)).__name__}. Fix: give one array "
            "of numbers for each sample"
        ) from error
    if found.dtype == object:
        raise InputError(f"the input {name!r} takes numbers, got missing values. Fix: leave the sample out")
    return found


def _is_nested(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object


def _text(value: Any) -> str:
    """An error of a batch as text; "" where it is missing."""
    return value if isinstance(value, str) else ""


def _plain(value: Any) -> Any:
    """The target of a sample as a plain value; None where it is missing."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if value is None or (isinstance(value, float) and value != value) else value
