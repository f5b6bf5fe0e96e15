"""Load the HTML templates of this package. Every text that is put into a page is escaped."""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import TYPE_CHECKING

from analyzer.figures.heat import Scale
from analyzer.figures.numbers import format_error, format_seconds, format_value
from analyzer.figures.tokens import chips

if TYPE_CHECKING:
    from jinja2 import Template


@lru_cache
def template(name: str) -> Template:
    """A page or a part of one; every text that is put into it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("analyzer.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        png=_data_uri,
        error=format_error,
        value=format_value,
        seconds=format_seconds,
        gradient=css_gradient,
        ends=scale_ends,
        place="{:.1f}".format,
        chips=chips,
    )
    return environment.get_template(name)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def scale_ends(scale: Scale) -> tuple[str, ...]:
    """What stands below a colour bar: numbers where the map has a unit, words where it has none."""
    if not scale.signed:
        return ("less", "more")
    low, high = (f"{end:+.2g}".replace("-", "−") for end in (scale.low, scale.high))
    return (low, high)


def css_gradient(scale: Scale) -> str:
    """A colour bar as CSS, from the low end to the high one."""
    stops = ", ".join(f"rgb({r} {g} {b})" for r, g, b in scale.colours(17))
    return f"linear-gradient(90deg, {stops})"
