"""A picture as reports and figures pass it on: PNG bytes with a caption."""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.figures.heat import Scale


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption, one line that says how to read it, and what its colours stand for."""

    caption: str
    png: bytes
    note: str = ""
    scale: Scale | None = None
