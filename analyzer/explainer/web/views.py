"""The views that a page offers of an explanation: which output each draws, and the colours.

From a Description to plain data for the page. A method with signed values has two views, one with signs and one by
size; a method without signs has one; FullGrad has a map of each kind.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analyzer.errors import ExportError
from analyzer.explainer.description import Description, Port
from analyzer.explainer.web.description import AGAIN, output_of
from analyzer.explainer.web.wording import IMPORTANCE, LABELS, SIGNED, sentence
from analyzer.figures.heat import CONTRAST, GROUND, LUMA, PERCENTILE, PIXELS, REGIONS, STRENGTH
from analyzer.figures.palette import sequential, signed_colours

_SHADES = 256


def views_of(found: Description, *, text: bool) -> list[dict[str, Any]]:
    """Return the views of an explainer, the one to show first at the front. Raises ExportError where it has no map."""
    drawn, complete = output_of(found, "map"), output_of(found, "complete_map")
    if drawn is None:
        raise ExportError(f"expected an output with the role 'map', found none. {AGAIN}")
    if complete is not None:
        # A sum over layers is read at the scale of regions.
        return [
            _view(found, IMPORTANCE, drawn, text=text),
            _view(found, SIGNED, complete, text=text, smoothing=REGIONS),
        ]
    attribution = output_of(found, "attribution")
    if text and found.signed and attribution is not None and len(attribution.shape) == 3:
        # The share of a token is the sum over its vector.
        drawn = attribution
    if not found.signed:
        return [_view(found, IMPORTANCE, drawn, text=text)]
    return [
        _view(found, SIGNED, drawn, text=text, smoothing=PIXELS),
        _view(found, IMPORTANCE, drawn, text=text, smoothing=PIXELS, own=False),
    ]


def _view(
    found: Description, key: str, port: Port, *, text: bool, smoothing: float = 0.0, own: bool = True
) -> dict[str, Any]:
    return {
        "key": key,
        "label": LABELS[key],
        "output": port.name,
        "signed": key == SIGNED,
        # By size: of a map with signs.
        "absolute": not own,
        "smoothing": 0.0 if text else smoothing,
        "sentence": sentence(found.method, key, found.sum_of, text=text, own=own),
        "legend": ["lowers the score", "raises the score"] if key == SIGNED else ["little", "much"],
    }


def look() -> dict[str, Any]:
    """Return the colours and constants of the reports' pictures, which the page draws with."""
    return {
        "sequential": _hex(sequential(np.linspace(0, 1, _SHADES))),
        "raises": _hex(signed_colours(np.linspace(0, 1, _SHADES))),
        "lowers": _hex(signed_colours(-np.linspace(1e-9, 1, _SHADES))),
        "percentile": PERCENTILE,
        "luma": list(LUMA),
        "ground": GROUND,
        "contrast": CONTRAST,
        "strength": STRENGTH,
    }


def _hex(colours: np.ndarray) -> str:
    pixels: bytes = np.round(np.clip(colours, 0, 1) * 255).astype(np.uint8).tobytes()
    return pixels.hex()
