"""Read INPUT files into one batch: images, .npy and .npz, folders and patterns, checked against the model's inputs.

Refuses, naming the file: what cannot be read, wrong shapes, NaN and infinity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analyzer.cli.models import read_array, read_arrays
from analyzer.cli.options import Layout, parse_channels, parse_size
from analyzer.cli.terminal import UserError
from analyzer.errors import InputError
from analyzer.graph.channel_axis import shape_with_channels
from analyzer.graph.fixes import FINITE, numbers_fix, shape_fix
from analyzer.graph.graph import Graph, Tensor
from analyzer.images.folders import SUFFIXES, files_of
from analyzer.images.load import ImageInput
from analyzer.images.preprocess import image_layout
from analyzer.types import kind_of
from converters.model import UNREAD_KEY, Model, Preprocessing

_ARRAY = "Fix: give a .npy array"
# Of files in a folder.
_READABLE = (SUFFIXES, (".npy",), (".npz",))


@dataclass(frozen=True)
class Batch:
    """Every sample of every file: {input name: (N, *features)}, a name per sample."""

    arrays: Mapping[str, np.ndarray]
    names: tuple[str, ...]
    preprocessing: Preprocessing | None
    assumed: bool
    """Whether images were fed in [0, 1] because no mean and std are known."""
    images: tuple[Path | None, ...] = ()
    """The image file of each sample, None of an array."""
    notes: tuple[str, ...] = ()
    """What was done to arrays so that they fit; told with the results."""

    @property
    def inputs(self) -> np.ndarray | Mapping[str, np.ndarray]:
        """What the API takes: one array for a model of one input."""
        return next(iter(self.arrays.values())) if len(self.arrays) == 1 else self.arrays


@dataclass(frozen=True)
class ImageOptions:
    """The preprocessing flags as given; None where not."""

    size: str | None = None
    mean: str | None = None
    std: str | None = None
    layout: Layout | None = None
    resize: int | None = None
    fit: str | None = None

    @property
    def any_given(self) -> bool:
        """Whether a flag was given."""
        return any(value is not None for value in (self.size, self.mean, self.std, self.layout, self.resize))


def read_inputs(paths: Sequence[Path], graph: Graph, model: Model, options: ImageOptions) -> Batch:
    """Read files in order and join their samples. paths: files, folders, and patterns such as photos/*.jpg."""
    paths = [file for path in paths for file in files_of(path, _READABLE)]
    pieces: list[dict[str, np.ndarray]] = []
    names: list[str] = []
    sources: list[Path | None] = []
    notes: list[str] = []
    used: Preprocessing | None = None
    for path in paths:
        suffix = path.suffix.lower()
        if suffix == ".npz":
            piece = _read_npz(path, graph)
        elif suffix == ".npy":
            piece = {_only_input(graph, path): read_array(path)}
        else:
            name = _only_input(graph, path)
            _refuse_unread(model, options)
            tensor = replace(graph.tensors[name], shape=shape_with_channels(graph, name))
            used = used or resolve_preprocessing(tensor, model.preprocessing, options)
            piece = {name: _read_photograph(path, tensor, used)}
        ranks = {name: array.ndim for name, array in piece.items()}
        piece = {name: _checked(array, graph.tensors[name], path) for name, array in piece.items()}
        if any(array.ndim > ranks[name] for name, array in piece.items()):
            notes.append(f"Note: {path} has no batch axis and is read as one sample.")
        count = _samples(piece, path)
        names += [path.name] if count == 1 else [f"{path.name}[{index}]" for index in range(count)]
        sources += [None if suffix in (".npz", ".npy") else path] * count
        pieces.append(piece)
    return Batch(
        arrays={name: _joined([piece[name] for piece in pieces], paths) for name in graph.inputs},
        names=unique_names(names),
        preprocessing=used or stored_preprocessing(model, options),
        assumed=used is not None
        and model.preprocessing is None
        and options.mean is options.std is None
        and graph.tensors[graph.inputs[0]].is_float,
        images=tuple(sources),
        notes=tuple(notes),
    )


def _refuse_unread(model: Model, options: ImageOptions) -> None:
    """Raise UserError where the preprocessing that comes with a model is not followed, and no other one is given."""
    reason = model.metadata.get(UNREAD_KEY)
    if reason and model.preprocessing is None and options.mean is options.std is None:
        raise UserError(f"{reason}. Fix: give --size, --mean and --std, or .npy arrays")


def read_background(path: Path, graph: Graph, model: Model, options: ImageOptions) -> dict[str, np.ndarray]:
    """A data set of baselines, {floating input: (M, *features)}: all files of a folder, or one file."""
    try:
        arrays = read_inputs([path], graph, model, options).arrays
    except InputError as error:
        raise UserError(f"--background {error}") from error
    return {name: array for name, array in arrays.items() if graph.tensors[name].is_float}


def stored_preprocessing(model: Model, options: ImageOptions) -> Preprocessing | None:
    """What undoes the normalisation of arrays: the model's preprocessing with the flags given."""
    base = model.preprocessing
    if base is None and (options.size is None or (options.mean is None and options.std is None)):
        return None
    return _override(base or Preprocessing((1, 1)), options)


def resolve_preprocessing(
    tensor: Tensor, stored: Preprocessing | None, options: ImageOptions
) -> Preprocessing:
    """How an image becomes this input: flags, then what the model stores, then the input's own shape."""
    shape = tensor.shape or ()
    layout = options.layout.value if options.layout else (stored.layout if stored else image_layout(shape))
    if layout is None or len(shape) != 4:
        raise UserError(f"the input {tensor.name!r} {_shape_text(tensor)} does not take an image. {_ARRAY}")
    size = parse_size(options.size) if options.size else (stored.size if stored else _size_of(shape, layout))
    if size is None:
        raise UserError(
            f"the input {tensor.name!r} {_shape_text(tensor)} leaves its image size open. Fix: give --size, as in "
            "--size 224"
        )
    # A network that takes whole numbers takes pixels as they are in the file.
    fit = options.fit or "crop"
    base = stored or Preprocessing(size, (0.0,), (1.0,) if tensor.is_float else (1 / 255,), layout, fit=fit)
    return _override(replace(base, size=size, layout=layout), options)


def stored_flags(options: ImageOptions) -> Preprocessing:
    """The preprocessing that the flags alone state; they hold a size."""
    assert options.size is not None
    return _override(Preprocessing(parse_size(options.size)), options)


def _override(base: Preprocessing, options: ImageOptions) -> Preprocessing:
    if options.size:
        base = replace(base, size=parse_size(options.size), resize=None)
    if options.mean:
        base = replace(base, mean=parse_channels("--mean", options.mean))
    if options.std:
        base = replace(base, std=parse_channels("--std", options.std))
    if options.layout:
        base = replace(base, layout=options.layout.value)
    return replace(base, resize=options.resize) if options.resize else base


def _size_of(shape: tuple[int | str | None, ...], layout: str) -> tuple[int, int] | None:
    height, width = shape[2:] if layout == "NCHW" else shape[1:3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _read_photograph(path: Path, tensor: Tensor, preprocessing: Preprocessing) -> np.ndarray:
    assert tensor.shape is not None
    channels = tensor.shape[1 if preprocessing.layout == "NCHW" else 3]
    if isinstance(channels, int) and channels not in (1, 3):
        raise UserError(f"the input {tensor.name!r} {_shape_text(tensor)} does not take an image. {_ARRAY}")
    if preprocessing.resize is not None and preprocessing.resize < max(preprocessing.size):
        height, width = preprocessing.size
        raise UserError(
            f"--resize {preprocessing.resize} is smaller than the crop {height}x{width}. Fix: give a larger "
            "--resize, or a smaller --size"
        )
    known = ImageInput(
        preprocessing, channels if isinstance(channels, int) else 3, None if tensor.is_float else tensor
    )
    return known.sample(path)[None]


def _read_npz(path: Path, graph: Graph) -> dict[str, np.ndarray]:
    arrays = read_arrays(path)
    if len(arrays) == len(graph.inputs) == 1:
        return {graph.inputs[0]: next(iter(arrays.values()))}
    missing = [name for name in graph.inputs if name not in arrays]
    if missing:
        raise UserError(
            f"{path}: has {_listed(arrays)}, but the model's inputs are {_listed(graph.inputs)}. Fix: name the "
            f"arrays so, as in np.savez(path, {missing[0]}=array)"
        )
    return {name: arrays[name] for name in graph.inputs}


def _only_input(graph: Graph, path: Path) -> str:
    if len(graph.inputs) != 1:
        raise UserError(
            f"{path}: the model has {len(graph.inputs)} inputs ({_listed(graph.inputs)}). "
            "Fix: give one .npz with an array for each"
        )
    return graph.inputs[0]


def _checked(array: np.ndarray, tensor: Tensor, path: Path) -> np.ndarray:
    """The array with a batch axis, in the input's dtype."""
    if array.dtype.kind not in "fiub":
        raise UserError(f"{path}: holds {kind_of(array, array)}, not real numbers. {numbers_fix(array)}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(
            f"{path}: holds NaN or infinity ({int((~np.isfinite(array)).sum())} of {array.size} values). "
            f"{FINITE}"
        )
    if array.dtype.kind == "f" and not tensor.is_float:
        raise UserError(
            f"{path}: holds {array.dtype}, but the input {tensor.name!r} takes {tensor.dtype}. Fix: write it again "
            f"with array.astype('{tensor.dtype}')"
        )
    if tensor.shape is None:
        return array.astype(tensor.dtype)
    if array.ndim == len(tensor.shape) - 1:
        array = array[None]
    fits = array.ndim == len(tensor.shape) and all(
        not isinstance(wanted, int) or wanted == given
        for wanted, given in zip(tensor.shape[1:], array.shape[1:], strict=True)
    )
    if not fits:
        raise UserError(
            f"{path}: has shape {array.shape}, but the input {tensor.name!r} takes {_shape_text(tensor)}. "
            f"{shape_fix(array.shape, tensor.shape)}"
        )
    return array.astype(tensor.dtype)


def _samples(piece: Mapping[str, np.ndarray], path: Path) -> int:
    counts = {array.shape[0] for array in piece.values() if array.ndim}
    if len(counts) > 1:
        raise UserError(
            f"{path}: its arrays have different numbers of samples, {sorted(counts)}. Fix: give each as many rows"
        )
    count = counts.pop() if counts else 1
    if not count:
        raise UserError(f"{path}: holds no sample. Fix: give an array with at least one row")
    return count


def _joined(arrays: Sequence[np.ndarray], paths: Sequence[Path]) -> np.ndarray:
    if len({array.shape[1:] for array in arrays}) > 1:
        shapes = ", ".join(f"{path} {array.shape[1:]}" for path, array in zip(paths, arrays, strict=True))
        raise UserError(
            f"the inputs have different shapes and make no batch: {shapes}. Fix: run the command once for each shape"
        )
    return np.concatenate(arrays) if len(arrays) > 1 else arrays[0]


def unique_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return names told apart: a second cat.png is cat.png (2)."""
    seen: dict[str, int] = {}
    told = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        told.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(told)


def _shape_text(tensor: Tensor) -> str:
    axes = ("?" if axis is None else str(axis) for axis in tensor.shape or ())
    return f"({', '.join(axes)})"


def _listed(names: object) -> str:
    return ", ".join(str(name) for name in names)  # type: ignore[attr-defined]
