"""Draw the three figures of docs/how_it_works.md: `python docs/make_ideas.py`. They are SVG files in docs/assets."""

from __future__ import annotations

import math
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

BLUE, ORANGE, GREY, PALE = "#3f51b5", "#d9480f", "#666666", "#f3f4f8"
matplotlib.rcParams.update(
    {"svg.fonttype": "path", "svg.hashsalt": "ideas", "font.size": 10, "font.family": "DejaVu Sans"}
)


def box(
    ax: Axes, x: float, y: float, text: str, colour: str, *, width: float = 1.5, height: float = 0.6
) -> None:
    """Draw a rounded box around its centre, with text."""
    shape = FancyBboxPatch(
        (x - width / 2, y - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.12",
        facecolor="white", edgecolor=colour, linewidth=1.6,
    )  # fmt: skip
    ax.add_patch(shape)
    ax.text(x, y, text, ha="center", va="center", color="#222222")


def arrow(
    ax: Axes, start: tuple[float, float], end: tuple[float, float], colour: str, **style: object
) -> None:
    """Draw an arrow between two points."""
    ax.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, **style})


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure without axes whose units are a hundred pixels."""
    figure, ax = plt.subplots(figsize=(width, height))
    ax.set(xlim=(0, width), ylim=(0, height))
    ax.set_position((0, 0, 1, 1))
    ax.axis("off")
    return figure, ax


def gradients_are_onnx() -> Figure:
    """Draw a network and the nodes that are appended to it."""
    figure, ax = canvas(8.4, 3.1)
    ax.text(0.2, 2.86, "the model: unchanged", color=BLUE, weight="bold", va="center")
    ax.text(
        0.2,
        0.22,
        "appended: the backward pass, in plain ONNX operators",
        color=ORANGE,
        weight="bold",
        va="center",
    )
    nodes = {2.3: ("Conv", "ConvTranspose"), 4.3: ("Relu", "Mul"), 6.3: ("Gemm", "MatMul")}
    top, bottom, wide = 2.2, 0.9, 1.5
    for x, (forward, backward) in nodes.items():
        box(ax, x, top, forward, BLUE, width=wide)
        box(ax, x, bottom, backward, ORANGE, width=wide)
        arrow(ax, (x, top - 0.32), (x, bottom + 0.32), GREY, linestyle=(0, (3, 3)))
    ax.text(4.42, (top + bottom) / 2, "values", color=GREY, va="center", fontsize=9)
    for x, text in ((0.6, "x"), (7.9, "f(x)")):
        ax.text(x, top, text, ha="center", va="center", style="italic", fontsize=12)
    ax.text(0.6, bottom, "∂f/∂x", ha="center", va="center", fontsize=12)
    ax.text(7.9, bottom, "1", ha="center", va="center", fontsize=12)
    stops = [0.9, *(edge for x in nodes for edge in (x - wide / 2, x + wide / 2)), 7.5]
    for start, end in zip(stops[::2], stops[1::2], strict=True):
        arrow(ax, (start, top), (end, top), BLUE)
        arrow(ax, (end, bottom), (start, bottom), ORANGE)
    return figure


def one_class_per_op() -> Figure:
    """Draw the class of an op and who uses its parts."""
    figure, ax = canvas(8.4, 3.0)
    card = FancyBboxPatch(
        (0.3, 0.25),
        3.5,
        2.5,
        boxstyle="round,pad=0,rounding_size=0.12",
        facecolor=PALE,
        edgecolor=BLUE,
        linewidth=1.6,
    )
    ax.add_patch(card)
    ax.text(0.5, 2.48, "class Softplus(Elementwise)", weight="bold", va="center", color=BLUE)
    rows = {
        2.05: ("its PyTorch form", "backend torch"),
        1.57: ("its TensorFlow form", "backend tensorflow"),
        1.09: ("its VJP, as ONNX nodes", "backend onnxruntime"),
        0.61: ("its kind: Elementwise", "FullGrad: the residual of every node"),
    }
    for y, (part, reader) in rows.items():
        ax.text(0.5, y, part, va="center", color="#222222")
        arrow(ax, (3.85, y), (4.6, y), GREY)
        ax.text(4.75, y, reader, va="center", color=ORANGE if y < 0.7 else "#222222")
    ax.plot([7.35, 7.5, 7.5, 7.35], [2.15, 2.15, 0.99, 0.99], color=GREY, linewidth=1.2)
    ax.text(7.6, 1.57, "must\nagree", va="center", color=GREY)
    return figure


def residual() -> Figure:
    """Draw a sigmoid, its tangent at a point, and the residual, which is the intercept of the tangent."""
    u = np.linspace(-4, 4, 400)
    at = 1.6
    value = 1 / (1 + math.exp(-at))
    slope = value * (1 - value)
    r = value - slope * at
    figure, ax = plt.subplots(figsize=(6.2, 3.4))
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.axvline(0, color=GREY, linewidth=0.8)
    ax.plot(u, 1 / (1 + np.exp(-u)), color=BLUE, linewidth=2.2)
    line = np.array([-1.2, 3.6])
    ax.plot(line, value + slope * (line - at), color=ORANGE, linewidth=1.4, linestyle="--")
    ax.plot([0, 0], [0, r], color=ORANGE, linewidth=5, solid_capstyle="butt")
    ax.plot([at], [value], "o", color=BLUE)
    ax.text(at, value - 0.07, "y = op(u)", color=BLUE, va="top")
    ax.text(3.6, value + slope * (3.4 - at) + 0.12, "tangent, slope J", color=ORANGE, ha="right")
    ax.text(0.2, r / 2, "residual  r = y − J·u", color=ORANGE, va="center")
    ax.set(xlim=(-4, 4), ylim=(-0.12, 1.35), xlabel="u", ylabel="y")
    ax.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def draw(folder: Path) -> None:
    """Draw and save the figures."""
    for name, figure in {
        "gradients": gradients_are_onnx(),
        "one_class": one_class_per_op(),
        "residual": residual(),
    }.items():
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).parent / "assets")
