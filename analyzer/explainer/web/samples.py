"""The samples that a page offers: photographs without their metadata, or sentences.

From paths (image models) or texts (text models) to files and entries of the page. Raises ExportError.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from analyzer.errors import ExportError
from analyzer.images.files import read_pixels
from converters.errors import with_fix

MOST = 24
MOST_SIDE = 2048
"""The longest side of a picture that the page explains, in pixels; larger ones are made smaller."""
MOST_CHARACTERS = 2000
_LOSSLESS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".ppm")


def image_samples(paths: Sequence[str | Path]) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return the page's entries, and the files to write by their path in the site."""
    _refuse_many(paths)
    entries, files = [], {}
    for number, path in enumerate(map(Path, paths), 1):
        content, suffix = _encoded(path)
        stem = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:40] or "sample"
        place = f"samples/{number}-{stem}{suffix}"
        entries.append({"name": path.stem[:80], "file": place})
        files[place] = content
    return entries, files


def text_samples(texts: Sequence[str | Path]) -> list[dict[str, Any]]:
    """Return the page's entries."""
    _refuse_many(texts)
    for text in texts:
        if not 0 < len(str(text).strip()) <= MOST_CHARACTERS:
            raise ExportError(
                f"expected a sample text of 1 to {MOST_CHARACTERS} characters, found {len(str(text))}. Fix: give "
                "a sentence"
            )
    return [{"name": str(text), "text": str(text)} for text in texts]


def _refuse_many(samples: Sequence[Any]) -> None:
    if len(samples) > MOST:
        raise ExportError(f"expected at most {MOST} samples, found {len(samples)}. Fix: give fewer")


def _encoded(path: Path) -> tuple[bytes, str]:
    """Return a picture's file without metadata, such as the place where it was taken, and its suffix."""
    from PIL import Image

    try:
        pixels = read_pixels(path)
    except ValueError as error:
        raise ExportError(with_fix(str(error), "give another picture")) from error
    if pixels.dtype != "uint8":
        raise ExportError(f"{path}: expected a picture of 8 bits. Fix: save it again as .png, in 8 bits")
    image = Image.fromarray(pixels)
    image.thumbnail((MOST_SIDE, MOST_SIDE))
    buffer = io.BytesIO()
    if path.suffix.lower() in _LOSSLESS:
        image.save(buffer, "PNG", optimize=True)
        return buffer.getvalue(), ".png"
    image.save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue(), ".jpg"
