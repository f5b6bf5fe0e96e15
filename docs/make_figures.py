"""Draw the figures of the documentation from a run of the demo: `python docs/make_figures.py`.

Runs `onnxplain demo` into a temporary folder and sets its pictures beside each other in docs/demo.png.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from analyzer.cli import main
from analyzer.figures import panel

COLUMNS = {
    "photograph": "photograph",
    "input-term": "input × gradient",
    "full-grad": "FullGrad",
    "integrated-gradients": "Integrated Gradients",
}
ROWS = {"cat": "tiger cat", "coffee": "espresso"}


def draw(folder: Path, destination: Path) -> None:
    """One row a photograph, one column a picture of the demo."""
    rows = []
    for name, label in ROWS.items():
        captions = [label, *list(COLUMNS.values())[1:]]
        pictures = [
            np.asarray(Image.open(folder / f"{name}-{column}.png").convert("RGB")) for column in COLUMNS
        ]
        rows.append(list(zip(captions, pictures, strict=True)))
    panel(rows, width=2.2).savefig(destination, dpi=110)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        if status := main(["demo", "-o", folder]):
            sys.exit(status)
        draw(Path(folder), Path(__file__).parent / "demo.png")
