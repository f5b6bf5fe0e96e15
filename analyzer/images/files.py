"""Read image files of a stranger: raster formats alone, bounded in pixels before anything is decoded.

From a path, or an image of Pillow, to RGB pixels. Refuses formats that run programs (EPS goes through Ghostscript),
images of more than MOST_PIXELS pixels, damaged files, and float images, which have no pixel range.
"""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import one_line, with_fix

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
MOST_PIXELS = 89_478_485
"""The number of pixels from which Pillow warns of a decompression bomb."""


def read_pixels(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the first image of a file as RGB, upright, on white where it is transparent.

    Returns (H, W, 3) uint8; float32 in [0, 1] for grey images of 16 bits. Raises ValueError with one line where the
    file is missing, no image of one of FORMATS, damaged, or too large.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"{path}: {'a folder, not a file' if path.is_dir() else 'no such file'}. Fix: give the path of an image "
            "file"
        )
    return _decoded(path, f"{path}: ")


def pixels_of_bytes(encoded: bytes) -> np.ndarray:
    """Return the pixels of an image file that was read into memory, as `read_pixels` does. Raises ValueError."""
    return _decoded(BytesIO(encoded), "")


def _decoded(source: Path | BytesIO, where: str) -> np.ndarray:
    """The first image of a file. where: its name, for messages."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(source, formats=FORMATS) as image:
            _refuse_large(image)
            ImageOps.exif_transpose(image, in_place=True)
            return _rgb(image)
    except UnidentifiedImageError as error:
        raise ValueError(
            f"{where}not a readable image. Fix: convert it to one of {', '.join(FORMATS)}"
        ) from error
    # Pillow documents no errors for damaged files; its parsers raise whatever they meet.
    except Exception as error:
        what = f"{where}not a readable image ({one_line(error)})"
        raise ValueError(with_fix(what, "save it again as .png, in 8 bits")) from error


def pixels_of(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image that Pillow has opened or made, as `read_pixels` does. Raises ValueError."""
    from PIL import ImageOps

    _refuse_large(image)
    return _rgb(ImageOps.exif_transpose(image))


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an image file as RGB: (H, W, 3) float32 in [0, 1], upright, on white where it is transparent.

    Returns the first image of a file of several. Raises ValueError with one line where the file is missing, no image,
    damaged, or has more than MOST_PIXELS pixels.
    """
    return as_float(read_pixels(path))


def as_float(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as float32 in [0, 1]."""
    if pixels.dtype != np.uint8:
        return pixels
    scaled: np.ndarray = pixels.astype(np.float32) / 255
    return scaled


def _refuse_large(image: Image.Image) -> None:
    """Raise ValueError for an image of too many pixels."""
    # Images of 16 bits a pixel become floats, which take four times the memory.
    most = MOST_PIXELS // 4 if image.mode.startswith("I") else MOST_PIXELS
    if image.width * image.height > most:
        raise ValueError(
            f"expected at most {most} pixels, found {image.width} x {image.height}. Fix: make the image smaller"
        )


def _rgb(image: Image.Image) -> np.ndarray:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range. Fix: give the array as .npy")
    if image.mode.startswith("I"):
        grey = np.asarray(image, np.float32) / 65535
        return np.repeat(np.clip(grey, 0, 1)[..., None], 3, axis=-1)
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
    return np.asarray(image.convert("RGB"))
