"""The report of a data set: its summary, and a page with pictures of unusual samples.

From Results, the images that they explain and masks to a SetSummary and a SetPage. A sample whose image cannot be read
again is shown as its map alone.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analyzer.data.columns import COMPLETENESS, MAP, PREDICTED, TARGET
from analyzer.data.restored import stacked
from analyzer.data.results import Results
from analyzer.data.set_pictures import SetMasks, SetPictures, preprocessing_of
from analyzer.data.statistics import MapPair
from analyzer.data.summary import ClassSummary, SetSummary, SummaryRow, summarize
from analyzer.data.table_schema import ID, LABEL, LABEL_INDEX, SHAPE
from analyzer.errors import AnalysisError
from analyzer.figures.numbers import format_error
from analyzer.methods import METHODS
from analyzer.report.set_page import Bin, SetPage, ShownClass, ShownMasks, ShownPair, ShownSample, render_set
from converters.system.atomic import write_text

SHOWN_CLASSES, SHOWN_SAMPLES = 24, 6
_NUMBERS = (ID, LABEL, LABEL_INDEX, TARGET, PREDICTED, COMPLETENESS)
# Bins of a histogram of completeness errors, in powers of ten.
_DECADES = (-7, -6, -5, -4, -3, -2, -1, 0)


@dataclass
class SetReport:
    """The report of the results of a data set.

    summary: the numbers. `to_html` writes the page, with pictures; `to_json` returns plain data.
    """

    results: Results
    summary: SetSummary
    pictures: SetPictures

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain data. Samples are named by their ids."""
        return self.summary.to_json()

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one self-contained page, whole or not at all."""
        write_text(path, render_set(_page(self)))


def report_results(
    results: Results | str | os.PathLike[str],
    *,
    masks: str | os.PathLike[str] | None = None,
    images: str | os.PathLike[str] | None = None,
) -> SetReport:
    """Summarize the explanations of a whole data set.

    results: what `explain_dataset` returned, or its folder.
    masks: a folder with masks of some or all samples: images or .npy files that are named by the samples' ids, of the
        size of the sample's image or of its map. Pixels other than 0 are inside.
    images: where the source is now. Default: where it was; without it, maps are shown alone.
    Raises AnalysisError where there are no results yet, InputError for masks that belong to no sample.
    """
    found = results if isinstance(results, Results) else Results(Path(results))
    if not len(found) and not found.errors:
        raise AnalysisError(f"{found.folder}: no sample is explained yet. Fix: run the job first")
    column = next((name for name in found.manifest["schema"] if name.partition("/")[0] == MAP), None)
    named = None if masks is None else SetMasks(Path(masks), found.ids, preprocessing_of(found.manifest))
    summary = summarize(
        _rows(found, column),
        class_names=found.manifest["class_names"] or (),
        mask_of=None if named is None else named.of,
        errors=Counter(str(error["reason"]) for error in found.errors),
    )
    return SetReport(found, summary, SetPictures(found, column, images))


def _rows(results: Results, column: str | None) -> Iterator[SummaryRow]:
    """Every sample with its map, a row group at a time."""
    names = [*_NUMBERS, *([column] if column else [])]
    for table in results.tables(names):
        numbers = {name: table.column(name).to_pylist() for name in _NUMBERS}
        maps = [None] * len(table) if column is None else _maps(table, column)
        for row in range(len(table)):
            yield SummaryRow(
                id=numbers[ID][row],
                label_index=numbers[LABEL_INDEX][row],
                target=numbers[TARGET][row],
                predicted=numbers[PREDICTED][row],
                error=numbers[COMPLETENESS][row],
                map=maps[row],
            )


def _maps(table: Any, column: str) -> Sequence[np.ndarray]:
    if column + SHAPE in table.column_names:
        return [stacked(table.slice(row, 1), column)[0] for row in range(len(table))]
    return list(stacked(table, column))


def _page(report: SetReport) -> SetPage:
    """The page of a report."""
    summary, manifest, show = report.summary, report.results.manifest, _Shown(report)
    order = summary.ordered(summary.areas)
    shown = summary.classes[:SHOWN_CLASSES]
    caption = METHODS[manifest["method"]].caption if manifest["method"] in METHODS else manifest["method"]
    failed = sum(summary.errors.values())
    ending = f", {failed:,} could not be" if failed else ""
    errors = summary.completeness
    return SetPage(
        title=str(manifest["model"]["name"]),
        headline=f"{summary.samples:,} samples are explained by {caption}{ending}.",
        facts=_facts(summary),
        bins=_bins(errors),
        median=float(np.median(errors)) if errors.size else None,
        largest=float(errors.max()) if errors.size else None,
        classes=[show.of_class(one) for one in shown],
        hidden=len(summary.classes) - len(shown),
        concentrated=show.samples(order[:SHOWN_SAMPLES]),
        spread=show.samples(order[::-1][:SHOWN_SAMPLES]),
        masks=_masks(summary, show),
        errors=dict(Counter(dict(summary.errors)).most_common(20)),
        settings=_settings(manifest, caption),
        environment={name: str(version) for name, version in manifest["versions"].items()},
    )


def _facts(summary: SetSummary) -> list[tuple[str, str]]:
    facts = [(f"{summary.samples:,}", "samples explained")]
    if failed := sum(summary.errors.values()):
        facts.append((f"{failed:,}", "samples that could not be explained"))
    facts.append((f"{len(summary.classes):,}", "explained classes"))
    if summary.accuracy is not None:
        facts.append(
            (f"{100 * summary.accuracy:.1f} %", f"of {summary.labelled:,} labelled samples classified right")
        )
    if summary.completeness.size:
        facts.append((format_error(float(summary.completeness.max())), "largest completeness error"))
    areas = summary.areas[~np.isnan(summary.areas)]
    if areas.size:
        facts.append((f"{100 * float(np.median(areas)):.1f} %", "of a map holds half of it (median)"))
    return facts


def _bins(errors: np.ndarray) -> list[Bin]:
    """The histogram of errors by powers of ten."""
    if not errors.size:
        return []
    edges = [0.0, *(10.0**power for power in _DECADES), np.inf]
    counts = [int(((errors >= low) & (errors < high)).sum()) for low, high in itertools.pairwise(edges)]
    names = ["below 1e-7", *(f"1e{low} to 1e{low + 1}" for low in _DECADES[:-1]), "1 and more"]
    most = max(counts)
    return [Bin(name, count, 100 * count / most) for name, count in zip(names, counts, strict=True) if count]


def _masks(summary: SetSummary, show: _Shown) -> ShownMasks | None:
    masked = ~np.isnan(summary.inside)
    if not masked.any():
        return None
    lowest = summary.ordered(summary.inside)[:SHOWN_SAMPLES]
    return ShownMasks(
        int(masked.sum()),
        float(summary.inside[masked].mean()),
        float(summary.uniform[masked].mean()),
        show.samples(lowest, summary.inside),
    )


def _settings(manifest: Mapping[str, Any], caption: str) -> dict[str, str]:
    found = {
        "model": f"{manifest['model']['name']}, SHA-256 {manifest['model']['sha256'][:12]}…",
        "method": caption,
    }
    found |= {name: str(value) for name, value in manifest["settings"].items() if value is not None}
    return found | {"source": str(manifest["source"]["path"]), "backend": str(manifest["backend"])}


class _Shown:
    """Samples and classes as they are drawn."""

    def __init__(self, report: SetReport) -> None:
        self.report = report
        self.labels: list[Any] = report.results.table([LABEL]).column(LABEL).to_pylist()
        self.targets: list[Any] = report.results.table([TARGET]).column(TARGET).to_pylist()
        self.names: Sequence[str] = report.results.manifest["class_names"] or ()

    def sample(self, place: int, number: float | None = None) -> ShownSample | None:
        """A sample with its map; None where the map is no picture."""
        name = self.report.summary.ids[place]
        picture = self.report.pictures.of(place, name)
        if picture is None:
            return None
        target = self.targets[place]
        known = target is not None and 0 <= target < len(self.names)
        words = [] if target is None else [self.names[target] if known else f"class {target}"]
        if (label := self.labels[place]) is not None:
            words.append(f"label {label}")
        if number is not None:
            words.append(f"{100 * number:.1f} %")
        return ShownSample(name, ", ".join(words), picture)

    def samples(self, places: Sequence[int], numbers: np.ndarray | None = None) -> list[ShownSample]:
        """Several samples. numbers: a share to state of each."""
        given = self.report.summary.areas if numbers is None else numbers
        found = (self.sample(place, float(given[place])) for place in places)
        return [one for one in found if one is not None]

    def pair(self, pair: MapPair | None) -> ShownPair | None:
        """Two samples."""
        if pair is None:
            return None
        first, second = self.sample(pair.first), self.sample(pair.second)
        return None if first is None or second is None else ShownPair(first, second, pair.correlation)

    def of_class(self, one: ClassSummary) -> ShownClass:
        """A class with its mean map and its pairs."""
        mean = None if one.mean_map is None else self.report.pictures.drawn(one.mean_map, "mean map")
        return ShownClass(
            one.name,
            one.samples,
            one.right,
            one.area_of_half,
            one.mean_map_area_of_half,
            mean,
            one.inside_mask,
            self.pair(one.alike),
            self.pair(one.different),
        )
