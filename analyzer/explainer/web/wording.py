"""State in plain words what a map shows: one sentence a view, for a reader who has never seen the method.

`{class}` is replaced on the page by the name of the explained class.
"""

from __future__ import annotations

from collections.abc import Mapping

from analyzer.explainer.description import Description

IMPORTANCE, SIGNED = "importance", "signed"
LABELS: Mapping[str, str] = {IMPORTANCE: "Importance", SIGNED: "For and against"}

_CAM = "Bright areas are where the last layers of the network found signs of “{class}”."
_SENSITIVE = "Bright areas are where small changes of the picture would change the score of “{class}” most."
_LAYERS = "Bright areas mattered most to the score of “{class}”, over all layers of the network."
_SIZES = "Bright areas mattered most to the score of “{class}”, whether they raise it or lower it."
_PARTS = "Red areas raise the score of “{class}”, blue areas lower it."
_DIFFERENCE = (
    "Red areas raise the score of “{class}” above that of an uninformative picture, blue areas lower it."
)

_IMPORTANCE: Mapping[str, str] = {
    "full-grad": _LAYERS,
    "simple-full-grad": _LAYERS,
    "smooth-full-grad": _LAYERS,
    "gradient": _SENSITIVE,
    "smooth-grad": _SENSITIVE,
    "smooth-grad-squared": _SENSITIVE,
    "var-grad": "Bright areas are where the sensitivity of the score of “{class}” varies most under noise.",
    "grad-cam": _CAM,
    "grad-cam-plus-plus": _CAM,
    "layer-cam": _CAM,
}
_TEXT_IMPORTANCE = "The stronger the colour of a word, the more it mattered to the score of “{class}”."
_TEXT_SIGNED = "Red words raise the score of “{class}”, blue words lower it."


def parts(found: Description, *, text: bool) -> str:
    """Return what the parts of an explanation are, whose sum the page checks."""
    elements = "all tokens" if text else "all pixels"
    layers = any(port.role == "complete_map" for port in found.outputs)
    return f"{elements} and of all layers of the network" if layers else elements


def sentence(method: str, view: str, sum_of: str | None, *, text: bool, own: bool) -> str:
    """Return the sentence of a view. own: whether the method draws this map itself, or its size is shown."""
    if text:
        return _TEXT_SIGNED if view == SIGNED else _TEXT_IMPORTANCE
    if view == SIGNED:
        return _DIFFERENCE if sum_of == "difference" else _PARTS
    return _IMPORTANCE.get(method, _SIZES) if own else _SIZES
