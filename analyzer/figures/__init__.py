"""Pictures of attributions, from arrays: heat maps, overlays, panels, bar charts and coloured text.

Nothing here knows of models, backends or methods.
"""

from __future__ import annotations

from analyzer.figures.charts import Bar, bar_labels, contribution_chart, share_text, short_names, shown_bars
from analyzer.figures.finite import drawable
from analyzer.figures.heat import (
    PIXELS,
    REGIONS,
    Scale,
    encode_png,
    heat_map,
    overlay,
    save_png,
    scale_of,
    smoothed,
)
from analyzer.figures.images import image_layout, photographs, preprocess, read_image, to_planes
from analyzer.figures.panels import panel, plot_maps
from analyzer.figures.plots import Look, plot_input
from analyzer.figures.tokens import ScoredTokens, limit_of, plot_tokens, tokens_text

__all__ = [
    "PIXELS",
    "REGIONS",
    "Bar",
    "Look",
    "Scale",
    "ScoredTokens",
    "bar_labels",
    "contribution_chart",
    "drawable",
    "encode_png",
    "heat_map",
    "image_layout",
    "limit_of",
    "overlay",
    "panel",
    "photographs",
    "plot_input",
    "plot_maps",
    "plot_tokens",
    "preprocess",
    "read_image",
    "save_png",
    "scale_of",
    "share_text",
    "short_names",
    "shown_bars",
    "smoothed",
    "to_planes",
    "tokens_text",
]
