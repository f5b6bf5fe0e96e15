"""Write files whole or not at all: beside the destination first, then renamed over it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_beside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a path in the destination's folder; what was written there replaces `path` on success.

    On an exception the partial file is removed and `path` stays as it was.
    """
    path = Path(path)
    # The suffix is kept: writers such as NumPy and Pillow choose the format by it.
    temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write `data` to `path`, whole or not at all."""
    with written_beside(path) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write `text` to `path` in UTF-8, whole or not at all."""
    return write_bytes(path, text.encode("utf-8"))
