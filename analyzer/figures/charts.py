"""The bar chart of what each layer contributes: which bars are shown, and the chart as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KINDS = ("input", "explicit", "implicit", "rest")
COLOURS = {"input": "#6b7280", "explicit": "#3465a4", "implicit": "#d9822b", "rest": "#a3a9b3"}


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


def contribution_chart(bars: Sequence[Bar], *, title: str = "", most: int = 24) -> Figure:
    """Draw signed contributions as horizontal bars, first layer on top, coloured by kind."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    shown = shown_bars(bars, most)
    figure = Figure(figsize=(8, 1.1 + 0.26 * max(len(shown), 1)), layout="constrained")
    axes = figure.add_subplot()
    rows = range(len(shown))
    axes.barh(rows, [bar.value for bar in shown], color=[COLOURS[bar.kind] for bar in shown], height=0.72)
    axes.set_yticks(rows, [bar.label for bar in shown], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(0, color="#374151", linewidth=0.8)
    axes.set_xlabel("contribution to the output", fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if title:
        axes.set_title(title, fontsize=11, loc="left")
    present = [kind for kind in KINDS if any(bar.kind == kind for bar in shown)]
    axes.legend(
        handles=[Patch(color=COLOURS[kind], label=KIND_NAMES[kind]) for kind in present],
        frameon=False,
        fontsize=8,
    )
    return figure


KIND_NAMES = {
    "input": "input × gradient",
    "explicit": "explicit bias",
    "implicit": "implicit bias",
    "rest": "the rest",
}
