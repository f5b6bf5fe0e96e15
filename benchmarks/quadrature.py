"""Measure the error of each rule: `python -m benchmarks.quadrature [--write docs/benchmarks.md] [--plot PNG]`.

The network is trained EfficientNet-Lite0 on five photographs, with Integrated Gradients from black. The tables have
medians for 17 to 257 gradients: the relative L2 error of the map, compared with 1,024 midpoints, and the error of the
sum. They cover fixed rules, the refinement, and the errors that the refinement states. Nothing is timed. Needs
`pip install ".[test,demo]"`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from rich.console import Console
from rich.progress import track

from analyzer import Differentiable, IntegratedGradients, differentiate, integrated_gradients
from analyzer.demo import PREPROCESSING, load_network
from analyzer.figures.images import preprocess, read_image
from benchmarks.results import Results, machine, write_section
from converters import convert

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "astronaut.png", "motorcycle_left.png", "camera.png")
COUNTS = (17, 33, 65, 129, 257)
RULES = ("gauss-legendre", "midpoint", "trapezoid", "simpson")
REFINED, STATED = "refined", "refined, as stated"
REFERENCE = 1024

Errors = dict[str, np.ndarray]


def errors(fn: Differentiable, image: np.ndarray) -> tuple[Errors, Errors]:
    """Return {rule: (counts,)}, the errors of the map and of the sum, for one photograph."""

    def run(**options: Any) -> IntegratedGradients:
        return integrated_gradients(fn, image, baseline="black", **options)

    reference = run(steps=REFERENCE, rule="midpoint")
    exact, difference = reference.attributions, reference.completeness.output[0]
    of_map, of_sum = ({name: np.zeros(len(COUNTS)) for name in (*RULES, REFINED, STATED)} for _ in range(2))
    for place, count in enumerate(COUNTS):
        found = {rule: run(steps=count, rule=rule) for rule in RULES}
        # The tolerance cannot be met, so the budget stops the refinement.
        found[REFINED] = run(tolerance=1e-9, max_evaluations=count)
        for name, result in found.items():
            of_map[name][place] = np.linalg.norm(result.attributions - exact) / np.linalg.norm(exact)
            of_sum[name][place] = abs(result.delta[0] / difference)
        of_map[STATED][place] = found[REFINED].map_error[0]
        of_sum[STATED][place] = found[REFINED].scatter[0] / abs(difference)
    return of_map, of_sum


def table(title: str, found: list[Errors], form: str) -> Results:
    """Return a table of medians over the photographs, with one row per rule."""
    rows = [
        [name, *(form.format(value) for value in np.median([one[name] for one in found], axis=0))]
        for name in (*RULES, REFINED, STATED)
    ]
    return Results(title, ("", *(f"{count} gradients" for count in COUNTS)), rows)


def plot(path: Path, found: list[Errors]) -> None:
    """Plot the error of the map over the gradients, both logarithmic; the thick line is the median."""
    from matplotlib.figure import Figure

    colours = {"gauss-legendre": "#7a7a7a", "midpoint": "#c9a227", REFINED: "#1f6f8b"}
    figure = Figure(figsize=(7.5, 4.6), layout="constrained")
    axes = figure.subplots()
    for name, colour in colours.items():
        curves = np.array([one[name] for one in found])
        axes.plot(COUNTS, curves.T, color=colour, lw=0.7, alpha=0.45)
        axes.plot(COUNTS, np.median(curves, axis=0), color=colour, lw=2.4, label=name)
    stated = np.median([one[STATED] for one in found], axis=0)
    axes.plot(
        COUNTS, stated, "o", color=colours[REFINED], mfc="white", label="error stated by the refinement"
    )
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="gradients of each photograph",
        ylabel="error of the map, relative L2",
    )
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS], minor=False)
    axes.set_xticks([], minor=True)
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    axes.set_yticks(ticks, [f"{100 * tick:.0f} %" for tick in ticks])
    axes.set_yticks([], minor=True)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    axes.set_title("Integrated Gradients of EfficientNet-Lite0, five photographs", loc="left", fontsize=11)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure, print, write and plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--plot", type=Path, metavar="PNG")
    options = parser.parse_args()
    folder = Path(skimage.__file__).parent / "data"
    images = [preprocess(read_image(folder / name), PREPROCESSING)[None] for name in PHOTOGRAPHS]
    network = load_network().requires_grad_(False)
    fn = differentiate(convert(network, torch.from_numpy(images[0]), preprocessing=PREPROCESSING))
    found = [errors(fn, image) for image in track(images, "photographs")]
    of_map, of_sum = ([one[k] for one in found] for k in (0, 1))
    tables = [
        table("Error of the map, relative L2, median of five photographs", of_map, "{:.3f}"),
        table("Error of the sum, as a share of f(x) − f(x′), median of five photographs", of_sum, "{:.1%}"),
    ]
    for one in tables:
        Console(width=140).print(one.rich())
    if options.write:
        command = "`python -m benchmarks.quadrature --write docs/benchmarks.md`"
        text = "\n\n".join([command, machine(("numpy", "onnxruntime")), *(one.markdown() for one in tables)])
        write_section(options.write, "Quadrature of Integrated Gradients", text)
    if options.plot:
        plot(options.plot, of_map)


if __name__ == "__main__":
    main()
