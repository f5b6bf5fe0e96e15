"""The bar chart of what each layer contributes: which bars are shown, what they are called, and the figure."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from analyzer.figures.canvas import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("input", "explicit", "implicit", "rest")
COLOURS = {"input": "#6b7280", "explicit": "#3465a4", "implicit": "#d9822b", "rest": "#a3a9b3"}
KIND_NAMES = {
    "input": "input × gradient",
    "explicit": "explicit bias",
    "implicit": "implicit bias",
    "rest": "the rest",
}


@dataclass(frozen=True)
class Bar:
    """One bar: a layer's signed contribution to the output. `kind` is one of KINDS."""

    label: str
    value: float
    kind: str


def shown_bars(bars: Sequence[Bar], most: int = 24) -> list[Bar]:
    """At most `most` bars in the given (network) order, the largest by absolute value, and the rest as one.

    Bars of the input are always shown. The sum of the bars is kept.
    """
    if len(bars) <= most:
        return list(bars)
    order = sorted(range(len(bars)), key=lambda index: (bars[index].kind != "input", -abs(bars[index].value)))
    largest = set(order[: most - 1])
    kept = [bars[index] for index in sorted(largest)]
    others = [bar for index, bar in enumerate(bars) if index not in largest]
    rest = Bar(f"the other {len(others)}", sum(bar.value for bar in others), "rest")
    return [*kept, rest]


def short_names(names: Sequence[str], most: int = 34) -> list[str]:
    """Names of layers for a narrow column: without the outer modules that all share, the middle cut where still long.

    Different names stay different; where cutting would make two alike, both stay whole.
    """
    outer = _shared_modules(names)
    inner = [name[outer:] for name in names]
    cut = [_cut(name, most) for name in inner]
    meant: dict[str, set[str]] = {}
    for name, short in zip(inner, cut, strict=True):
        meant.setdefault(short, set()).add(name)
    return [short if len(meant[short]) == 1 else name for name, short in zip(inner, cut, strict=True)]


def _shared_modules(names: Sequence[str]) -> int:
    """The length of the modules' path that all names begin with; a name's own last part is none of it."""
    if len(set(names)) < 2:
        return 0
    paths = [re.findall(r"[^./]*[./]", name) for name in names]
    shared = itertools.takewhile(lambda modules: len(set(modules)) == 1, zip(*paths, strict=False))
    return sum(len(modules[0]) for modules in shared)


def _cut(name: str, most: int) -> str:
    """A name of at most `most` characters: its beginning and, being the more telling, more of its end."""
    if len(name) <= most:
        return name
    head = (most - 1) // 3
    return f"{name[:head]}…{name[head + 1 - most :]}"


def bar_labels(bars: Sequence[Bar], most: int = 34) -> list[str]:
    """The label of every bar, short. Where one layer has bars of two kinds, the colour tells them apart."""
    layers = [bar.label for bar in bars if bar.kind in ("explicit", "implicit")]
    short = dict(zip(layers, short_names(layers, most), strict=True))
    return [short.get(bar.label, bar.label) for bar in bars]


def aligned(bars: Sequence[Bar]) -> list[str]:
    """The bars' values with their signs, their points one below the other: three digits of the largest."""
    largest = max((abs(bar.value) for bar in bars), default=0) or 1.0
    decimals = max(0, 2 - math.floor(math.log10(largest)))
    return [f"{bar.value:+.{decimals}f}".replace("-", "−") for bar in bars]


def share_text(value: float, output: float) -> str:
    """A signed share of the output: "+12 %", "−0.3 %", "+5.1e+06 ×" from 100 times on; nothing of an output of 0."""
    if output == 0:
        return ""
    share = 100 * value / output
    if abs(share) >= 1e4:
        return f"{value / output:+.{'1e' if abs(share) >= 1e6 else '0f'}} ×".replace("+-", "-").replace(
            "-", "−", 1
        )
    digits = 0 if abs(share) >= 9.95 else 1 if abs(share) >= 0.05 or share == 0 else 2
    return f"{share:+.{digits}f} %".replace("-", "−")


def contribution_chart(
    bars: Sequence[Bar], *, title: str = "", most: int = 24, output: float | None = None
) -> Figure:
    """Draw signed contributions as horizontal bars, first layer on top, coloured by kind.

    output: what the bars are shares of, written at their ends; default their sum.
    """
    from matplotlib.patches import Patch

    shown = shown_bars(bars, most)
    whole = sum(bar.value for bar in bars) if output is None else output
    figure = new_figure(8, 1.3 + 0.26 * max(len(shown), 1), layout="constrained", dpi=110)
    axes = figure.add_subplot()
    rows = range(len(shown))
    drawn = axes.barh(
        rows, [bar.value for bar in shown], color=[COLOURS[bar.kind] for bar in shown], height=0.72
    )
    axes.bar_label(
        drawn, [share_text(bar.value, whole) for bar in shown], padding=4, fontsize=7, color="#4b5563"
    )
    # Room for the shares beside the longest bars, on either side.
    axes.margins(x=0.16, y=0.3 / max(len(shown), 1))
    axes.set_yticks(rows, bar_labels(shown), fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="#374151", linewidth=0.8)
    axes.set_xlabel("contribution, in units of the output, and its share", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    present = [kind for kind in KINDS if any(bar.kind == kind for bar in shown)]
    figure.legend(
        handles=[Patch(color=COLOURS[kind], label=KIND_NAMES[kind]) for kind in present],
        loc="outside lower left",
        ncols=len(KINDS),
        frameon=False,
        fontsize=8,
    )
    return figure
