"""Compare trained networks with their optimized and quantized files: `python examples/04_optimized.py [-o PAGE]`.

There are two trained networks: EfficientNet-Lite0 on three photographs, and a small transformer that learns gratings in
seconds. PyTorch exports each network, and every tool of rewriters.py rewrites the file. `compare` then compares each
result with its original: layers, outputs, gradients, FullGrad and Integrated Gradients. The script prints tables and
writes a Markdown page. It needs the `demo` extra.
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

from analyzer.checks.report import Report
from analyzer.demo import PREPROCESSING, load_network
from analyzer.errors import AnalysisError
from analyzer.figures.images import preprocess, read_image
from converters.errors import ConversionError
from onnxplain import compare

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "rocket.jpg")
KINDS = ("full grad", "integrated gradients")
STEPS = 8
PACKAGES = ("onnxruntime", "onnxscript", "onnxslim", "onnxsim", "torch", "onnx")

HEAD = f"""# Optimizers and quantizers

Does an optimized file still predict for the same reasons? One tool made each file below from the original, and
`compare` compared both. An optimizer must keep the function, layer by layer and gradient by gradient. A quantizer
changes the function. For quantizers, the tables show how much the attributions moved, and where.

- *Matched* layers have a counterpart with equal values, and *near* layers a counterpart whose values moved.
- *Unmatched* layers of the original were fused away; those of the rewritten file are new.
- *Output* is the relative L2 of the logits, *FullGrad* that of the map, and *IG* that of Integrated Gradients ({STEPS}
  points). Each cell has the worst sample, and after the slash the mean.
- *Cosine* and *rank correlation* are those of the worst sample.
- Quantized files are differentiated straight through their rounding.

`python examples/04_optimized.py -o docs/optimizers.md`
"""


@dataclass(frozen=True)
class Network:
    """A trained network, the inputs to explain, and the inputs for the calibration of quantizers."""

    title: str
    module: torch.nn.Module
    inputs: np.ndarray
    calibration: np.ndarray
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """The result for one rewritten file: the report, or the reason why it was refused."""

    tool: str
    samples: tuple[str, ...]
    report: Report | None
    refusal: str = ""


def photographs() -> Network:
    """Return EfficientNet-Lite0 and three photographs; calibration uses their mirror images and quarters."""
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
    """Return the four quarters of a picture (H, W, 3)."""
    height, width = (size // 2 for size in picture.shape[:2])
    return [picture[y : y + height, x : x + width] for y in (0, height) for x in (0, width)]


def gratings() -> Network:
    """Train a transformer over patches and return it with gratings of four orientations."""
    module, accuracy = train_gratings()
    images, classes = example_gratings(4, seed=1)
    samples = tuple(f"grating at {45 * int(index)}°" for index in classes)
    title = f"A small transformer on gratings, {accuracy:.0%} right on new ones"
    return Network(title, module, images, example_gratings(32, seed=2)[0], samples)


NETWORKS: dict[str, Callable[[], Network]] = {"photographs": photographs, "gratings": gratings}


def examine(network: Network, tools: Sequence[str], step: Callable[[str], None]) -> list[Outcome]:
    """Rewrite the exported network with every tool and compare each result with the original."""
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "original.onnx"
        export(network, original)
        return [_outcome(network, original, tool, step) for tool in tools]


def export(network: Network, path: Path) -> None:
    """Export the network with PyTorch, for any number of samples."""
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
    """Return the cells: tool, verdict, layers, outputs, changed classes."""
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
    """Return the cells: tool, the change of both attributions, and the sample that changed most."""
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
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def found(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the findings of the tables as sentences."""
    reports = {outcome.tool: outcome.report for outcome in outcomes if outcome.report is not None}
    samples = {outcome.tool: outcome.samples for outcome in outcomes}
    same = [tool for tool, report in reports.items() if report.passed]
    lines = [f"- The same function, and the same reasons: {', '.join(same)}."] if same else []
    for tool, report in reports.items():
        if not report.passed:
            (pair,) = report.pairs
            first: Any = pair.first_divergence
            where = (
                f"first divergence at {first['quantity']} `{first['tensor']}` ({first['op_type']} of "
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
    """Return the share in percent, with two digits and no exponent."""
    return f"{float(f'{100 * share:.2g}'):g} %"


def _vanished(report: Report, samples: Sequence[str]) -> str:
    """Return a sentence about the samples whose map is zero."""
    gone = [samples[row["sample"]] for row in report.drift if row[f"{KINDS[0]} cosine"] == 0]
    if not gone:
        return ""
    return (
        f" The map of {', '.join(gone)} is zero: every path to the explained logit passes a value beyond the range of "
        "its quantizer, where the gradient is 0."
    )


def _moved() -> tuple[str, ...]:
    return tuple(f"{kind} relative_l2" for kind in KINDS)


def write_sections(page: Path, sections: Sequence[str]) -> None:
    """Replace the sections with the same headings, and keep all other sections of the page."""
    old = (
        re.split(r"^(?=## )", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        if page.exists()
        else []
    )
    kept = {text.partition("\n")[0]: text for text in (*old, *sections)}
    page.write_text("\n".join(text.strip() + "\n" for text in (HEAD, *kept.values())), encoding="utf-8")


def section(network: Network, outcomes: Sequence[Outcome]) -> str:
    """Return the section of one network."""
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
    """Return a table for the terminal."""
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
