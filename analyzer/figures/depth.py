"""The error of every layer over depth as the geometry of a plot: one panel of values, one of gradients.

From the rows of a check, by pair of sides, to points in the units of an SVG; depth.html draws them. Both axes are
shared by all pairs: across, the position in the graph; up, the relative L2 on a logarithmic scale, whose lowest line
is what is exactly equal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from analyzer.types import Row

WIDTH, LEFT, RIGHT = 1040.0, 58.0, 18.0
NARROW = 350.0
"""The width of the plot on a phone."""
HEIGHT, TOP, GAP, FOOT = 190.0, 30.0, 48.0, 34.0
# Colours of pairs; beyond them they begin anew.
COLOURS = 6
# Points that a line shows; of more, the worst of every stretch.
MOST_POINTS = 300
MOST_PLACES, MOST_TICKS = 8, 7
# About the width of a letter.
LETTER = 7.0
PANELS = (
    ("Values of layers", ("layer", "output")),
    ("Gradients at inputs and biases", ("input gradient", "bias gradient")),
)


class PairRows(Protocol):
    """The comparisons of two sides."""

    @property
    def a(self) -> str:
        """One side."""

    @property
    def b(self) -> str:
        """The other side."""

    @property
    def rows(self) -> Sequence[Row]:
        """One row a comparison."""

    @property
    def first_divergence(self) -> Row | None:
        """The first failing row in the order of computation."""


@dataclass(frozen=True)
class DepthPoint:
    """One tensor. state: "fail", "explained" or "" where it is within its tolerance; title: shown when hovered."""

    x: float
    y: float
    state: str
    title: str


@dataclass(frozen=True)
class DepthLine:
    """One pair of sides. colour: its number among COLOURS."""

    name: str
    colour: int
    points: tuple[DepthPoint, ...]

    @property
    def path(self) -> str:
        """The points as an SVG's polyline."""
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


@dataclass(frozen=True)
class Mark:
    """Where a pair first diverges. anchor: on which side of the mark its label begins."""

    x: float
    y: float
    label: str
    anchor: str
    label_y: float


@dataclass(frozen=True)
class Panel:
    """One of the plots. ticks: (y, text); tolerances: (y, text)."""

    title: str
    top: float
    bottom: float
    lines: tuple[DepthLine, ...]
    ticks: tuple[tuple[float, str], ...]
    tolerances: tuple[tuple[float, str], ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class DepthPlot:
    """All panels, and places: (x, layer) along the shared axis."""

    height: float
    panels: tuple[Panel, ...]
    places: tuple[tuple[float, str], ...]
    width: float = WIDTH
    left: float = LEFT

    @property
    def right(self) -> float:
        """The right end of the axis."""
        return self.width - RIGHT


@dataclass(frozen=True)
class _Scales:
    """From depth and error to a place. depths, decades: the ends of the axes."""

    depths: tuple[int, int]
    decades: tuple[int, int]
    top: float = 0.0
    width: float = WIDTH

    def x(self, depth: float) -> float:
        low, high = self.depths
        return LEFT + 8 + (self.width - LEFT - RIGHT - 16) * (depth - low) / max(high - low, 1)

    def y(self, error: float) -> float:
        if not math.isfinite(error):
            return self.top
        low, high = self.decades
        # One decade below the smallest stands the line of what is exactly equal.
        place = max(math.log10(error), low) if error > 0 else low - 1
        return self.top + HEIGHT * (high - place) / (high - low + 1)


def depth_plot(pairs: Sequence[PairRows], width: float = WIDTH) -> DepthPlot | None:
    """The plot of all pairs, of some width; None where no row has a place in the graph."""
    drawn = [
        (title, quantities, found)
        for title, quantities in PANELS
        if any(found := [_rows_of(pair.rows, quantities) for pair in pairs])
    ]
    every = [row for _, _, found in drawn for rows in found for row in rows]
    if not every:
        return None
    depths = [int(row["depth"]) for row in every]
    ends, decades = (min(depths), max(depths)), _decades(every)
    panels = []
    for index, (title, quantities, found) in enumerate(drawn):
        scales = _Scales(ends, decades, TOP + index * (HEIGHT + GAP), width)
        panels.append(_panel(title, quantities, pairs, found, scales))
    height = TOP + len(panels) * (HEIGHT + GAP) - GAP + FOOT
    return DepthPlot(height, tuple(panels), _places(every, _Scales(ends, (0, 1), width=width)), width)


def _rows_of(rows: Iterable[Row], quantities: Sequence[str]) -> list[Row]:
    """The rows of some quantities in graph order; a tensor that is both a layer and an output stands once."""
    kept: dict[str, Row] = {}
    for row in rows:
        if row["quantity"] in quantities and "depth" in row:
            known = kept.get(row["tensor"])
            kept[row["tensor"]] = row if known is None or not row["passed"] else known
    return sorted(kept.values(), key=lambda row: int(row["depth"]))


def _decades(rows: Sequence[Row]) -> tuple[int, int]:
    """The powers of ten that hold every error and every tolerance."""
    sizes = [float(row[key]) for row in rows for key in ("relative_l2", "tolerance")]
    logs = [math.log10(size) for size in sizes if size > 0 and math.isfinite(size)]
    low, high = math.floor(min(logs, default=-8.0)), math.ceil(max(logs, default=0.0))
    return low, max(high, low + 2)


def _panel(
    title: str,
    quantities: Sequence[str],
    pairs: Sequence[PairRows],
    found: Sequence[Sequence[Row]],
    scales: _Scales,
) -> Panel:
    lines = [
        DepthLine(
            f"{pair.a} · {pair.b}",
            number % COLOURS,
            tuple(_point(row, scales) for row in _thinned(rows, scales.depths)),
        )
        for number, (pair, rows) in enumerate(zip(pairs, found, strict=True))
        if rows
    ]
    allowed = sorted({float(row["tolerance"]) for rows in found for row in rows})
    return Panel(
        title,
        scales.top,
        scales.top + HEIGHT,
        tuple(lines),
        _ticks(scales),
        tuple((scales.y(bound), f"{bound:.0e}") for bound in allowed),
        _marks(quantities, pairs, scales),
    )


def _point(row: Row, scales: _Scales) -> DepthPoint:
    error = float(row["relative_l2"])
    state = "fail" if not row["passed"] else "explained" if row["explanation"] else ""
    where = ", ".join(str(row[key]) for key in ("op_type", "layer") if row.get(key)) or "input"
    told = {"fail": ", disagrees", "explained": f", explained: {row['explanation']}", "": ""}[state]
    title = f"{row['tensor']} ({where})\n{row['a']} · {row['b']}: relative L2 {error:.1e}{told}"
    return DepthPoint(scales.x(int(row["depth"])), scales.y(error), state, title)


def _thinned(rows: Sequence[Row], depths: tuple[int, int]) -> list[Row]:
    """At most MOST_POINTS rows, the worst of every stretch of the graph; what fails stays."""
    if len(rows) <= MOST_POINTS:
        return list(rows)
    span = max(depths[1] - depths[0], 1)
    worst: dict[int, Row] = {}
    for row in rows:
        stretch = (int(row["depth"]) - depths[0]) * (MOST_POINTS - 1) // span
        known = worst.get(stretch)
        if known is None or _rank(row) > _rank(known):
            worst[stretch] = row
    return [worst[stretch] for stretch in sorted(worst)]


def _rank(row: Row) -> tuple[bool, float]:
    error = float(row["relative_l2"])
    return not row["passed"], error if error == error else math.inf


def _ticks(scales: _Scales) -> tuple[tuple[float, str], ...]:
    """The powers of ten, thinned where they stand close, and the line of what is equal."""
    low, high = scales.decades
    step = -(-(high - low + 1) // MOST_TICKS)
    powers = range(high, low - 1, -step)
    return (
        *((scales.y(10.0**power), f"1e{power}".replace("-", "−")) for power in powers),
        (scales.y(0), "0"),
    )


def _marks(quantities: Sequence[str], pairs: Sequence[PairRows], scales: _Scales) -> tuple[Mark, ...]:
    """The first divergence of every pair, once a tensor.

    Labels stand low, one above the other, where the points stand high: behind a layer that goes wrong values differ,
    before it gradients do. A label is on the other side where the plot ends too soon.
    """
    first: dict[str, Row] = {}
    for pair in pairs:
        row = pair.first_divergence
        if row is not None and row["quantity"] in quantities and "depth" in row:
            first.setdefault(row["tensor"], row)
    marks = []
    for number, row in enumerate(first.values()):
        x = scales.x(int(row["depth"]))
        label = _label(row, scales.width)
        wide = LETTER * len(label) + 20
        fits = {"start": x + wide < scales.width, "end": x - wide > LEFT}
        wanted = "end" if str(row["quantity"]).endswith("gradient") else "start"
        marks.append(
            Mark(
                x,
                scales.y(float(row["relative_l2"])),
                label,
                wanted if fits[wanted] else "start" if wanted == "end" else "end",
                scales.top + HEIGHT - 12 - 15 * number,
            )
        )
    return tuple(marks)


def _label(row: Row, width: float) -> str:
    """What stands at the first divergence."""
    if width < WIDTH:
        return f"first: {_short(str(row['tensor']))}"
    operation = f" ({row['op_type']})" if row.get("op_type") else ""
    return f"first divergence: {_short(str(row['tensor']), 40)}{operation}"


def _places(rows: Iterable[Row], scales: _Scales) -> tuple[tuple[float, str], ...]:
    """A few layers' names along the axis, evenly spread."""
    names: dict[int, str] = {}
    for row in sorted(rows, key=lambda row: int(row["depth"])):
        names.setdefault(int(row["depth"]), str(row.get("layer") or row.get("node") or row["tensor"]))
    depths = list(names)
    low, high = depths[0], depths[-1]
    most = MOST_PLACES if scales.width == WIDTH else 2
    wanted = [low + (high - low) * number / (most - 1) for number in range(most)]
    chosen = dict.fromkeys(min(depths, key=lambda depth: abs(depth - place)) for place in wanted)
    kept: list[tuple[float, str]] = []
    # The last one stands at the edge whatever is beside it.
    for depth in reversed(chosen):
        place, name = scales.x(depth), _short(names[depth])
        if not kept or kept[-1][0] - place > LETTER * max(len(name), len(kept[-1][1])):
            kept.append((place, name))
    return tuple(reversed(kept))


def _short(name: str, most: int = 16) -> str:
    """The end of a long name, which tells layers apart."""
    return name if len(name) <= most else f"…{name[1 - most :]}"
