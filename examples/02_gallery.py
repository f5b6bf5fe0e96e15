"""Draw FullGrad's maps of a trained classifier side by side: `python examples/02_gallery.py [-o gallery.png]`.

For four photographs of scikit-image, the gallery has FullGrad as published (explicit biases), Simple FullGrad, Smooth
FullGrad and the complete map. The complete map is signed. Its sum is the output minus the terms without a position in
the image. The script needs the `demo` extra.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console

from analyzer.demo import PREPROCESSING, class_names, load_network
from analyzer.figures import overlay, panel, scale_of, smoothed
from analyzer.figures.images import photographs as as_pictures
from analyzer.figures.images import preprocess, read_image
from onnxplain import convert, differentiate, full_grad, simple_full_grad, smooth_full_grad

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg", "camera.png")
COLUMNS = ("FullGrad", "Simple FullGrad", "Smooth FullGrad")


def photographs() -> list[np.ndarray]:
    """Return the photographs, RGB (H, W, 3) in [0, 1]."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [read_image(folder / name) for name in PHOTOGRAPHS]


def main(arguments: list[str] | None = None) -> int:
    """Explain the highest class of every photograph, print the sums, and draw the gallery."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("gallery.png"))
    parser.add_argument("--samples", type=int, default=25, help="number of noisy copies for Smooth FullGrad")
    options = parser.parse_args(arguments)
    console = Console()
    pictures = photographs()
    inputs = np.stack([preprocess(picture, PREPROCESSING) for picture in pictures])
    model = convert(load_network(), inputs, preprocessing=PREPROCESSING, class_names=class_names())
    fn = differentiate(model)
    explicit, complete = full_grad(fn, inputs, terms="explicit"), full_grad(fn, inputs)
    simple = simple_full_grad(fn, inputs)
    with console.status("Smooth FullGrad"):
        smooth = smooth_full_grad(fn, inputs, samples=options.samples, terms="explicit")

    rows, names = [], class_names()
    assert complete.target is not None
    drawn = as_pictures(inputs, PREPROCESSING)
    assert drawn is not None
    for index, shown in enumerate(drawn):
        name = names[complete.target[index]]
        maps = [overlay(shown, found.map[index]) for found in (explicit, simple, smooth)]
        in_map, apart = complete.complete_map[index].sum(), complete.unplaced_total[index]
        output = complete.completeness.output[index]
        console.print(
            f"{name}: {in_map:.4f} in the map + {apart:.4f} apart = {in_map + apart:.4f}, output {output:.4f}"
        )
        # Smoothing cancels neighbours of opposite sign and keeps the sum.
        plane = smoothed(complete.complete_map[index])
        last = (
            f"complete map: {in_map:.2f} of {output:.2f}",
            overlay(shown, plane, signed=True),
            scale_of(plane, "logit per pixel", signed=True),
        )
        rows.append([(name, shown), *zip(COLUMNS, maps, strict=True), last])
    panel(rows, width=2.2).savefig(options.output, dpi=100)
    console.print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
