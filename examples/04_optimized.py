"""What optimizers and quantizers do to a trained network's reasons: `python examples/04_optimized.py [-o PAGE]`.

Two trained networks, EfficientNet-Lite0 on three photographs and a small transformer on gratings that it learns in
seconds, are exported by PyTorch, rewritten by every tool of rewriters.py, and each result is held against its original
by `compare`: layers, outputs, gradients, FullGrad, Integrated Gradients. Prints tables, writes a page of Markdown.
Needs the `demo` extra.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gratings import example_gratings, train_gratings
from rewriters import REWRITERS
from rich.console import Console
from rich.table import Table

from analyzer import compare
from analyzer.checks.report import Report
from analyzer.demo import PREPROCESSING, load_network
from analyzer.errors import AnalysisError
from analyzer.figures.images import preprocess, read_image
from converters.errors import ConversionError

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg")
KINDS = ("full grad", "integrated gradients")
STEPS = 8
PACKAGES = ("onnxruntime", "onnxscript", "onnxslim", "onnxsim", "torch", "onnx")

HEAD = f"""# Optimizers and quantizers

Does an optimized file still decide for the same reasons? Each file below was made from the original by one tool and
held against it by `compare`. An optimizer must leave the function as it is, layer by layer and gradient by gradient. A
quantizer may not: there the question is how far the reasons moved, and where.

*Matched* layers have a counterpart of equal values, *near* ones a nearest counterpart whose values moved, the others
were fused away (of the original) or are new (of the rewritten file). *Output* is the relative L2 of the logits;
*FullGrad* that of the map, *IG* of Integrated Gradients ({STEPS} points); each of the worst sample and, behind the
stroke, the mean. *Cosine* and *rank correlation* are those of the worst sample. Quantized files are differentiated
straight through their rounding.

`python examples/04_optimized.py -o docs/optimizers.md`
"""


@dataclass(frozen=True)
class Network:
    """A trained network, the inputs that are explained, and those that quantizers calibrate on."""

    title: str
    module: torch.nn.Module
    inputs: np.ndarray
    calibration: np.ndarray
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one rewritten file: the report, or why it was refused."""

    tool: str
    samples: tuple[str, ...]
    report: Report | None
    refusal: str = ""


def photographs() -> Network:
    """EfficientNet-Lite0 on three photographs; quantizers calibrate on their mirror images and on quarters."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    pictures = [read_image(folder / name) for name in PHOTOGRAPHS]
    others = [part for picture in pictures for part in (picture[:, ::-1], *quarters(picture))]
    images, calibration = (
        np.stack([preprocess(picture, PREPROCESSING) for picture in some]) for some in (pictures, others)
    )
    samples = tuple(name.partition(".")[0] for name in PHOTOGRAPHS)
    return Network("EfficientNet-Lite0 on photographs", load_network(), images, calibration, samples)


def quarters(picture: np.ndarray) -> list[np.ndarray]:
    """The four corners of a picture (H, W, 3), each half as high and wide."""
    height, width = (size // 2 for size in picture.shape[:2])
    return [picture[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]


def gratings() -> Network:
    """A transformer over patches, trained here, on gratings of four orientations."""
    module, accuracy = train_gratings()
    images, classes = example_gratings(4, seed=1)
    samples = tuple(f"grating at {45 * int(index)}°" for index in classes)
    title = f"A small transformer on gratings, {accuracy:.0%} right on new ones"
    return Network(title, module, images, example_gratings(32, seed=2)[0], samples)


NETWORKS: dict[str, Callable[[], Network]] = {"photographs": photographs, "gratings": gratings}


def examine(network: Network, tools: Sequence[str], step: Callable[[str], None]) -> list[Outcome]:
    """Rewrite the exported network by every tool and compare it with itself."""
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "original.onnx"
        export(network, original)
        return [_outcome(network, original, tool, step) for tool in tools]


def export(network: Network, path: Path) -> None:
    """The network as PyTorch writes it, for any number of samples."""
    exported = torch.onnx.export(
        network.module,
        (torch.from_numpy(network.inputs),),
        input_names=["x"],
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("samples")},),
        verbose=False,
    )
    assert exported is not None
    exported.save(str(path), external_data=False)


def _outcome(network: Network, original: Path, tool: str, step: Callable[[str], None]) -> Outcome:
    made = original.with_name("rewritten.onnx")
    step(tool)
    REWRITERS[tool](original, made, [{"x": network.calibration}])
    try:
        report = compare(
            original,
            made,
            network.inputs,
            steps=STEPS,
            straight_through=True,
            names=("original", "rewritten"),
            progress=lambda what: step(f"{tool}: {what}"),
        )
    except (ConversionError, AnalysisError) as error:
        return Outcome(tool, network.samples, None, str(error).replace(f"{made}: ", ""))
    return Outcome(tool, network.samples, report)


def layers_row(outcome: Outcome) -> list[str]:
    """Tool, verdict, layers, outputs, classes."""
    report = outcome.report
    if report is None:
        return [outcome.tool, "refused", *["–"] * 6]
    drift = [row["output"] for row in report.drift]
    explained = sum(pair.explained for pair in report.pairs)
    kinks = f", {explained} by kinks" if explained else ""
    return [
        outcome.tool,
        "the same function" if report.passed else "another function",
        str(len(report.matched)),
        str(len(report.near)),
        " / ".join(str(len(report.unmatched[name])) for name in report.backends),
        f"{len(report.rows)}{kinks}",
        f"{max(drift):.0e} / {np.mean(drift):.0e}",
        f"{sum(row['changed'] for row in report.drift)} of {len(report.drift)}",
    ]


def attributions_row(outcome: Outcome) -> list[str]:
    """Tool, and of both attributions how far they moved; the sample that moved furthest."""
    report = outcome.report
    if report is None:
        return [outcome.tool, *["–"] * 7]
    cells = [outcome.tool]
    for kind in KINDS:
        moved = [row[f"{kind} relative_l2"] for row in report.drift]
        cells.append(f"{max(moved):.0e} / {np.mean(moved):.0e}")
        cells += [
            f"{min(row[f'{kind} {what}'] for row in report.drift):.4f}"
            for what in ("cosine", "rank_correlation")
        ]
    return [*cells, outcome.samples[report.drift[0]["sample"]]]


LAYERS = ("rewritten by", "verdict", "matched", "near", "unmatched", "comparisons", "output", "class changes")
ATTRIBUTIONS = ("rewritten by", *("FullGrad", "cosine", "rank"), *("IG", "cosine", "rank"), "worst sample")


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def found(outcomes: Sequence[Outcome]) -> list[str]:
    """What the tables say, in sentences."""
    reports = {outcome.tool: outcome.report for outcome in outcomes if outcome.report is not None}
    samples = {outcome.tool: outcome.samples for outcome in outcomes}
    same = [tool for tool, report in reports.items() if report.passed]
    lines = [f"- The same function, and the same reasons: {', '.join(same)}."] if same else []
    for tool, report in reports.items():
        if not report.passed:
            (pair,) = report.pairs
            first: Any = pair.first_divergence
            where = (
                f"first apart at {first['quantity']} `{first['tensor']}` ({first['op_type']} of "
                f"`{first['layer'] or first['node']}`, relative L2 {first['relative_l2']:.0e})"
            )
            largest = [max(row[key] for row in report.drift) for key in ("output", *_moved())]
            lines.append(
                f"- {tool}: {where}. Logits move by up to {_percent(largest[0])}, FullGrad's map by "
                f"{_percent(largest[1])}, Integrated Gradients by {_percent(largest[2])}."
                f"{_vanished(report, samples[tool])}"
            )
    return lines + [
        f"- {outcome.tool}: refused: {outcome.refusal.rstrip('.')}."
        for outcome in outcomes
        if outcome.refusal
    ]


def _percent(share: float) -> str:
    """Two digits, without an exponent."""
    return f"{float(f'{100 * share:.2g}'):g} %"


def _vanished(report: Report, samples: Sequence[str]) -> str:
    """The samples of whose map nothing is left."""
    gone = [samples[row["sample"]] for row in report.drift if row[f"{KINDS[0]} cosine"] == 0]
    if not gone:
        return ""
    return (
        f" Of {', '.join(gone)} no map is left: every path to the explained logit passes a value beyond the range of "
        "its quantizer, where the gradient is 0."
    )


def _moved() -> tuple[str, ...]:
    return tuple(f"{kind} relative_l2" for kind in KINDS)


def write_sections(page: Path, sections: Sequence[str]) -> None:
    """Put these sections in the place of those of the same heading; the page's others stay as they are."""
    old = (
        re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        if page.exists()
        else []
    )
    kept = {text.partition("\n")[0]: text for text in (*old, *sections)}
    page.write_text("\n".join(text.strip() + "\n" for text in (HEAD, *kept.values())), encoding="utf-8")


def section(network: Network, outcomes: Sequence[Outcome]) -> str:
    """One network's part of the page."""
    versions = [f"{name} {metadata.version(name)}" for name in PACKAGES if find_spec(name)]
    parts = [
        f"## {network.title}",
        f"{', '.join(versions)}.",
        markdown(LAYERS, [layers_row(outcome) for outcome in outcomes]),
        markdown(ATTRIBUTIONS, [attributions_row(outcome) for outcome in outcomes]),
        "\n".join(found(outcomes)),
    ]
    return "\n\n".join(parts) + "\n"


def shown(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table for the terminal."""
    table = Table(*columns, title=title, box=None)
    for row in rows:
        table.add_row(*row)
    return table


def main(arguments: list[str] | None = None) -> int:
    """Rewrite, compare, print, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, metavar="PAGE")
    parser.add_argument("--network", choices=list(NETWORKS), action="append", help="default: both")
    parser.add_argument("--tool", choices=list(REWRITERS), action="append", help="default: all")
    options = parser.parse_args(arguments)
    console, sections = Console(width=160), []
    for name in options.network or NETWORKS:
        network = NETWORKS[name]()
        with console.status(network.title) as status:
            outcomes = examine(network, options.tool or list(REWRITERS), status.update)
        console.print(shown(network.title, LAYERS, [layers_row(outcome) for outcome in outcomes]))
        console.print(
            shown("attributions", ATTRIBUTIONS, [attributions_row(outcome) for outcome in outcomes])
        )
        for line in found(outcomes):
            console.print(line, markup=False)
        sections.append(section(network, outcomes))
    if options.output:
        write_sections(options.output, sections)
        console.print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
