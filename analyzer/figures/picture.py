"""A picture as reports and figures pass it on: PNG bytes with a caption."""

from __future__ import annotations

from dataclasses import dataclass

from analyzer.figures.heat import Scale


@dataclass(frozen=True)
class Picture:
    """A PNG with its caption, a line that says how to read it, and the scale of its colours."""

    caption: str
    png: bytes
    note: str = ""
    scale: Scale | None = None
