"""The HTML page of the explanations of a whole data set: one self-contained page from plain data, without a script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from analyzer.figures.picture import Picture
from analyzer.report.templates import template


@dataclass(frozen=True)
class ShownSample:
    """A sample with its map. detail: what was explained of it, and its label."""

    name: str
    detail: str
    picture: Picture


@dataclass(frozen=True)
class ShownPair:
    """Two samples of one class, and the correlation of their maps."""

    first: ShownSample
    second: ShownSample
    correlation: float


@dataclass(frozen=True)
class ShownClass:
    """The samples for which one class was explained.

    right: the share of the samples with this label that the model classifies right; None without labels.
    area, mean_area: the smallest share of the map's elements that holds half of it, the mean of the samples and that of
    the mean map. inside: the mean share of the map inside the masks; None without masks.
    """

    name: str
    count: int
    right: float | None
    area: float
    mean_area: float
    mean: Picture | None = None
    inside: float | None = None
    alike: ShownPair | None = None
    different: ShownPair | None = None


@dataclass(frozen=True)
class ShownMasks:
    """How much of the maps lies inside masks. uniform: the share of a map that is the same everywhere."""

    samples: int
    inside: float
    uniform: float
    lowest: Sequence[ShownSample] = ()


@dataclass(frozen=True)
class Bin:
    """One bar of a histogram. share: of the highest bar, in percent."""

    label: str
    count: int
    share: float


@dataclass(frozen=True)
class SetPage:
    """Everything on the page, in its order.

    facts: (number, words) at the top. bins: the histogram of completeness errors; largest, median: of the errors.
    hidden: the number of classes that are not shown. errors: {reason: number of samples}.
    """

    title: str
    headline: str
    facts: Sequence[tuple[str, str]] = ()
    bins: Sequence[Bin] = ()
    median: float | None = None
    largest: float | None = None
    classes: Sequence[ShownClass] = ()
    hidden: int = 0
    concentrated: Sequence[ShownSample] = ()
    spread: Sequence[ShownSample] = ()
    masks: ShownMasks | None = None
    errors: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def render_set(page: SetPage) -> str:
    """Return the page as HTML text."""
    return template("set.html").render(page=page)
