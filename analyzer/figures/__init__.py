"""Pictures of attributions, from arrays: heat maps, overlays, panels, bar charts and the HTML report.

Nothing here knows of models, backends or methods.
"""

from __future__ import annotations

from analyzer.figures.charts import Bar, contribution_chart, shown_bars
from analyzer.figures.heat import encode_png, heat_map, overlay, save_png
from analyzer.figures.images import image_layout, photographs, preprocess, read_image, to_planes
from analyzer.figures.panels import attribution_figure, panel

__all__ = [
    "Bar",
    "attribution_figure",
    "contribution_chart",
    "encode_png",
    "heat_map",
    "image_layout",
    "overlay",
    "panel",
    "photographs",
    "preprocess",
    "read_image",
    "save_png",
    "shown_bars",
    "to_planes",
]
