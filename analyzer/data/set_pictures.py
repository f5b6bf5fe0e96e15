"""The images and the masks of the samples of a result, as the model sees them, and maps drawn over the images.

From the manifest of a result and a folder to arrays and Pictures. An image that cannot be read again is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.data.results import Results
from analyzer.data.sources import Source, open_source
from analyzer.data.statistics import in_cells
from analyzer.data.summary import SummaryRow
from analyzer.data.table_schema import POSITION
from analyzer.errors import InputError, note
from analyzer.figures.heat import PIXELS, REGIONS, encode_png, enlarged, heat_map, overlay, scale_of, smoothed
from analyzer.figures.images import photographs
from analyzer.figures.picture import Picture
from analyzer.images.files import as_float, read_pixels
from analyzer.images.folders import SUFFIXES
from analyzer.images.load import to_pixels
from analyzer.images.preprocess import preprocess
from converters.errors import one_line
from converters.model import Preprocessing


def preprocessing_of(manifest: Mapping[str, Any]) -> Preprocessing | None:
    """Return the preprocessing of the model that a manifest states."""
    stored = manifest.get("preprocessing")
    if stored is None:
        return None
    values: dict[str, Any] = {
        key: tuple(one) if isinstance(one, list) else one for key, one in stored.items()
    }
    return Preprocessing(**values)


class SetMasks:
    """The masks of samples, by their ids."""

    def __init__(self, folder: Path, ids: Sequence[str], preprocessing: Preprocessing | None) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder. Fix: give the folder with the masks")
        self._preprocessing = preprocessing
        files = [one for one in folder.rglob("*") if one.suffix.lower() in SUFFIXES | {".npy"}]
        self._files = {one.relative_to(folder).with_suffix("").as_posix(): one for one in files}
        if not self._files.keys() & {_stem(one) for one in ids}:
            raise InputError(
                f"{folder}: no file has the name of a sample, such as {_stem(ids[0]) if ids else 'cat'}.png. Fix: name "
                "the masks as the samples"
            )

    def of(self, row: SummaryRow) -> np.ndarray | None:
        """Return the mask of a sample at the size of its map; None where it has none. Raises InputError."""
        path = self._files.get(_stem(row.id))
        if path is None or row.map is None:
            return None
        try:
            is_array = path.suffix.lower() == ".npy"
            values = np.load(path, allow_pickle=False) if is_array else read_pixels(path)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: not a readable mask ({one_line(error)}). Fix: save it again"
            ) from error
        inside = (values != 0).astype(np.float32)
        if inside.ndim == 3 and row.map.ndim == 2:
            inside = inside.max(axis=-1)
        if inside.ndim != row.map.ndim:
            raise InputError(
                f"{path}: expected a mask of {row.map.ndim} axes, found shape {values.shape}. Fix: give one number for "
                "each pixel"
            )
        if inside.shape != row.map.shape and self._preprocessing is not None and inside.ndim == 2:
            inside = _as_seen(inside[..., None].repeat(3, axis=-1), self._preprocessing)[..., 0]
        if inside.shape == row.map.shape:
            found: np.ndarray = inside
            return found
        area = in_cells(np.ones(inside.shape), row.map.shape)
        shares: np.ndarray = np.clip(in_cells(inside, row.map.shape) / area, 0, 1)
        return shares


def _stem(name: str) -> str:
    """An id without its suffix; ids that are numbers of rows have none."""
    path = Path(name)
    return path.with_suffix("").as_posix() if path.suffix.lower() in SUFFIXES | {".npy"} else name


def _as_seen(pixels: np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """An image (H, W, 3) in [0, 1] resized and cropped as for the model, (h, w, 3), and not normalised."""
    plain = replace(preprocessing, mean=(0.0,) * 3, std=(1.0,) * 3, layout="NHWC")
    seen: np.ndarray = np.clip(preprocess(pixels.astype(np.float32), plain), 0, 1)
    return seen[0] if seen.ndim == 4 else seen


class SetPictures:
    """The maps of samples over their images."""

    def __init__(
        self, results: Results, column: str | None, images: str | os.PathLike[str] | None = None
    ) -> None:
        self.results, self.column = results, column
        self._place = None if images is None else os.fspath(images)
        self._preprocessing = preprocessing_of(results.manifest)

    @property
    def signed(self) -> bool:
        """Whether maps have a sign."""
        entry = self.results.manifest["schema"][self.column] if self.column else {"meaning": ""}
        return str(entry["meaning"]).endswith("with sign")

    @cached_property
    def _source(self) -> Source | None:
        """The samples as they were; None where they are not there any more, or are others."""
        manifest = self.results.manifest
        stated = {key: value for key, value in manifest["source"].items() if key != "path"}
        place = self._place or manifest["source"]["path"]
        inputs = manifest.get("inputs")
        if not inputs or not place or (self._place is None and not Path(place).exists()):
            return None
        found = open_source(place, inputs, label=manifest["label"], column=manifest["column"])
        if found.described()["identity"] != stated:
            note(f"{place}: holds other samples than the results. Maps are shown without their images")
            return None
        return found

    def of(self, place: int, caption: str = "") -> Picture | None:
        """Return the map of a sample over its image, or alone; None of a map that is no picture."""
        if self.column is None:
            return None
        values = self.results[place].map(self.results.manifest["schema"][self.column]["tensor"] or None)[0]
        return self.drawn(values, caption, self._photograph(place, values.shape))

    def drawn(self, values: np.ndarray, caption: str, photograph: np.ndarray | None = None) -> Picture | None:
        """Return a map as a picture; None of a map that is neither a line nor a plane, or not finite."""
        plane = values[None] if values.ndim == 1 else values
        if plane.ndim != 2 or not np.isfinite(plane).all():
            return None
        scale = scale_of(plane, signed=self.signed)
        if photograph is None:
            tall = np.repeat(plane, max(1, plane.shape[1] // 8), axis=0) if values.ndim == 1 else plane
            return Picture(caption, encode_png(enlarged(heat_map(tall, signed=self.signed))), scale=scale)
        spread = smoothed(plane, REGIONS if self.signed else PIXELS)
        return Picture(
            caption,
            encode_png(enlarged(overlay(photograph, spread, scale=scale_of(spread, signed=self.signed)))),
            scale=scale_of(spread, signed=self.signed),
        )

    def _photograph(self, place: int, shape: tuple[int, ...]) -> np.ndarray | None:
        """The image of a sample, (H, W, 3) in [0, 1], as the model sees it; None where there is none."""
        if self._source is None or len(shape) != 2:
            return None
        position = self._positions[place]
        record = next(iter(self._source.records(position, position + 1)), None)
        if record is None or record.error:
            return None
        value = next(iter(record.values.values()))
        if hasattr(value, "dtype") and (value.dtype != np.uint8 or self._preprocessing is None):
            found = photographs(np.asarray(value)[None], self._preprocessing)
            return None if found is None else found[0]
        try:
            pixels = as_float(to_pixels(value))
        except (ValueError, OSError):
            return None
        return pixels if self._preprocessing is None else _as_seen(pixels, self._preprocessing)

    @cached_property
    def _positions(self) -> list[int]:
        found: list[int] = self.results.table([POSITION]).column(POSITION).to_pylist()
        return found
