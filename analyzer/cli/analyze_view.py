"""What `onnxplain analyze` and `demo` show in a terminal: predictions, completeness, the largest layers, files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyzer.cli.terminal import Terminal, verdict

if TYPE_CHECKING:
    from analyzer.cli.inputs import Batch
    from analyzer.cli.tokens import ScoredTexts
    from analyzer.figures.charts import Bar
    from analyzer.methods.full_gradient.result import FullGrad
    from analyzer.methods.result import Attribution
    from analyzer.methods.summary import Asked
    from analyzer.report.page import Prediction

# Of each, what a screen holds; --json and the written files have all.
MOST_LAYERS, MOST_SAMPLES, MOST_FILES = 6, 3, 8
WIDE = 100


def show_results(
    terminal: Terminal,
    batch: Batch,
    results: Sequence[Attribution],
    predicted: Sequence[tuple[Prediction, ...]],
    class_names: Sequence[str] | None,
    files: Sequence[Path],
    texts: ScoredTexts = (),
    asked: Asked = "",
) -> None:
    """Write everything that a terminal shows of results. asked: the target in the user's words."""
    from analyzer.methods.full_gradient.result import FullGrad
    from analyzer.methods.summary import completeness_rows

    show_predictions(terminal, batch.names, predicted)
    show_targets(terminal, results, batch.names, class_names, asked)
    show_places(terminal, results, batch.names)
    show_completeness(terminal, completeness_rows(results, batch.names))
    summed = [one for one in results if one.completeness is not None]
    notes = [f"{one.caption}: to explain is {one.sums_to}" for one in summed if one.sums_to]
    notes += [f"{one.caption}: {one.remark}" for one in summed if one.remark]
    for note in dict.fromkeys(notes):
        terminal.remark(note)
    for result in results:
        if isinstance(result, FullGrad) and result.contributions:
            show_layers(terminal, result, batch.names)
    show_texts(terminal, batch.names, texts)
    show_files(terminal, files)
    if not files:
        terminal.out.print()
        terminal.remark(
            "Nothing was written. -o FOLDER writes pictures, arrays, report.html and summary.json."
        )


def show_targets(
    terminal: Terminal,
    results: Sequence[Attribution],
    names: Sequence[str],
    class_names: Sequence[str] | None,
    asked: Asked = "",
) -> None:
    """A table of what is explained; of several classes of a sample with their outputs and deltas."""
    from analyzer.figures.numbers import format_value
    from analyzer.methods.summary import by_method, target_text

    terminal.heading("Explained")
    groups = by_method(results)
    if not groups[0][0].classes:
        rows = [
            (name, target_text(results[0], index, class_names, asked))
            for index, name in enumerate(names[:MOST_SAMPLES])
        ]
        terminal.table(("input", "target"), rows)
        show_rest(terminal, names)
        return
    deltas = [f"delta, {group[0].method}" for group in groups] if len(groups) > 1 else ["delta"]
    cells = []
    for index, name in enumerate(names[:MOST_SAMPLES]):
        for place, ranked in enumerate(zip(*groups, strict=True)):
            text, output = target_text(ranked[0], index, class_names, asked), f"{ranked[0].output[index]:.3f}"
            shown = (format_value(float(one.delta[index])) for one in ranked if one.delta is not None)
            cells.append(("" if place else name, text, output, *shown))
    terminal.table(("input", "target", "output", *deltas), cells, right=range(2, 3 + len(groups)))
    show_rest(terminal, names)


def show_places(terminal: Terminal, results: Sequence[Attribution], names: Sequence[str]) -> None:
    """Where every method finds the reasons, of the first samples."""
    from analyzer.methods.answers import place

    rows = [
        ("" if number else name, sentence)
        for index, name in enumerate(names[:MOST_SAMPLES])
        for number, sentence in enumerate(filter(None, (place(result, index) for result in results)))
    ]
    if rows:
        terminal.heading("Where it looked")
        terminal.table(("input", "strongest part of the map"), rows)
        show_rest(terminal, names)


def show_predictions(
    terminal: Terminal, names: Sequence[str], predicted: Sequence[tuple[Prediction, ...]], most: int = 3
) -> None:
    """A table of the highest classes of each sample."""
    if not any(predicted):
        return
    terminal.heading("Predictions")
    rows = [
        (
            name if place == 0 else "",
            p.name,
            str(p.index),
            f"{p.value:.3f}",
            f"{100 * (p.probability or 0):.1f} %",
        )
        for name, classes in zip(names[:MOST_SAMPLES], predicted, strict=False)
        for place, p in enumerate(classes[:most])
    ]
    terminal.table(("input", "class", "index", "output", "probability"), rows, right=(2, 3, 4))
    show_rest(terminal, names)


def show_completeness(terminal: Terminal, rows: Sequence[Any]) -> None:
    """Write a table of the sums of the attributions: of the first samples, and of those that fail."""
    from analyzer.figures.numbers import format_error, format_value

    if not rows:
        return
    terminal.heading("Completeness")
    short = {row.method: row.method.partition(",")[0] for row in rows}
    if terminal.out.width >= WIDE or len(set(short.values())) < len(short):
        short = {method: method for method in short}
    cells: list[tuple[Any, ...]] = []
    previous = None
    failing = {row.sample for row in rows if row.passed is False}
    names = list(dict.fromkeys(row.sample for row in rows))
    shown = {*names[:MOST_SAMPLES], *failing}
    for row in (row for row in rows if row.sample in shown):
        name = "" if row.sample == previous else row.sample
        previous = row.sample
        numbers = (format_value(row.output), format_value(row.total), format_error(row.error))
        cells.append((name, short[row.method], *numbers, verdict(row.passed)))
    columns = ("input", "method", "to explain", "sum", "error", "")
    terminal.table(columns, cells, right=(2, 3, 4))
    show_rest(terminal, names, len(shown))


def show_texts(terminal: Terminal, names: Sequence[str], texts: ScoredTexts) -> None:
    """The tokens of the first samples, coloured by what they are attributed."""
    from analyzer.figures import limit_of, tokens_text

    if not any(texts):
        return
    terminal.heading("Tokens")
    limit = limit_of([text for own in texts for text in own])
    for name, own in list(zip(names, texts, strict=True))[:MOST_SAMPLES]:
        for text in own:
            terminal.out.print()
            terminal.out.print(name, style="bold", end="  ")
            terminal.out.print(tokens_text(text, limit, terminal.out.width))
    show_rest(terminal, names)


def show_layers(terminal: Terminal, result: FullGrad, names: Sequence[str]) -> None:
    """The largest contributions to the outputs of the first samples, and how much of each the complete map holds."""
    from analyzer.figures.charts import KIND_NAMES, aligned, bar_labels, share_text
    from analyzer.methods.pictures import complete_sum, result_bars

    terminal.heading("What makes the output")
    cells: list[tuple[str, ...]] = []
    for index, name in enumerate(names[:MOST_SAMPLES]):
        shown = _largest(result_bars(result, index))
        labels = bar_labels(shown, 44 if terminal.out.width >= WIDE else 26)
        output = float(result.completeness.output[index])
        cells += [
            (
                "" if place else name,
                label,
                "" if bar.kind in ("input", "rest") else KIND_NAMES[bar.kind],
                value,
                share_text(bar.value, output),
            )
            for place, (label, bar, value) in enumerate(zip(labels, shown, aligned(shown), strict=True))
        ]
    terminal.table(("input", "layer", "kind", "sum", "share"), cells, right=(3, 4), fixed=(2, 3, 4))
    if any(found.ndim > 2 for found in result.by_tensor(result.complete_map).values()):
        for index, name in enumerate(names[:MOST_SAMPLES]):
            terminal.remark(f"{name}: {complete_sum(result, index)}")
    show_rest(terminal, names)


def show_rest(terminal: Terminal, names: Sequence[str], shown: int = MOST_SAMPLES) -> None:
    """Write how many inputs a table leaves out."""
    rest = len(names) - shown
    if rest > 0:
        terminal.remark(f"and {rest} more input{'s' * (rest != 1)}, in --json and in the files of -o")


def _largest(bars: Sequence[Bar]) -> list[Bar]:
    """The inputs' bars, the largest of the layers', largest first, and the rest as one."""
    from analyzer.figures.charts import Bar

    inputs = [bar for bar in bars if bar.kind == "input"]
    layers = sorted((bar for bar in bars if bar.kind != "input"), key=lambda bar: -abs(bar.value))
    rest = layers[MOST_LAYERS:]
    others = [Bar(f"the other {len(rest)}", sum(bar.value for bar in rest), "rest")] if rest else []
    return [*inputs, *layers[:MOST_LAYERS], *others]


def show_files(terminal: Terminal, files: Sequence[Path]) -> None:
    """Write the names of the files, one a line: the report first, and of many files the number of the others."""
    if files:
        terminal.heading("Written")
        ordered = sorted(files, key=lambda path: path.name != "report.html")
        listed = ordered if len(files) <= MOST_FILES else ordered[:MOST_FILES]
        for path in listed:
            terminal.out.print(f"  {path}", soft_wrap=True)
        if len(files) > len(listed):
            rest = len(files) - len(listed)
            folder = ordered[0].parent
            terminal.out.print(
                f"  and {rest} more file{'s' * (rest != 1)} in {folder}", soft_wrap=True, markup=False
            )
