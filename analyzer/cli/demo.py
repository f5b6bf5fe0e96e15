"""`onnxplain demo`: a trained classifier and two photographs, from conversion to report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.analyze_view import show_completeness, show_files, show_predictions
from analyzer.cli.check_view import show_agreement
from analyzer.cli.destinations import refuse_unwritable
from analyzer.cli.options import JsonOption, split_list
from analyzer.cli.terminal import Terminal, UserError

if TYPE_CHECKING:
    from analyzer.demo import Demo


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write into.")] = Path(
        "onnxplain-demo"
    ),
    backends: Annotated[
        str | None,
        typer.Option(
            "--backends", "--backend", help="Comma list of backends to check. Default: all there are."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Explain a cat and a cup of coffee with a trained network, from conversion to a checked report."""
    from analyzer.backends import BACKENDS
    from analyzer.checks.comparison import STEPS
    from analyzer.demo import PARTS, TITLE, run

    terminal = Terminal(as_json)
    if output.exists() and not output.is_dir():
        raise UserError(
            f"{output}: a file, where -o takes a folder. Fix: give -o a folder that is new or exists"
        )
    refuse_unwritable(output)
    chosen = split_list(backends) if backends is not None else None
    with terminal.steps("onnxplain demo", PARTS + len(chosen or BACKENDS) + STEPS) as step:
        found = run(output, backends=chosen, step=step)
    terminal.out.print(TITLE, style="bold")
    _show(terminal, found)
    terminal.document(_document(found))
    if not found.passed:
        raise typer.Exit(1)


def _show(terminal: Terminal, found: Demo) -> None:
    from analyzer.figures.numbers import format_seconds
    from analyzer.methods.summary import completeness_rows

    verified = found.model.verification
    if verified is not None:
        terminal.out.print(
            f"converted to ONNX, held to {verified.reference}: relative L2 {verified.relative_l2:.1e}",
            soft_wrap=True,
        )
    show_predictions(terminal, found.names, found.predictions)
    show_completeness(terminal, completeness_rows(found.results, found.names))
    _explicit_shortfall(terminal, found)
    show_agreement(terminal, found.check.rows, found.check.completeness)
    for name, reason in found.check.skipped.items():
        terminal.out.print(f"not run: {name} ({reason})", style="dim", soft_wrap=True)
    terminal.heading("Time")
    backends = [(f"  {name}", format_seconds(time)) for name, time in found.check.seconds.items()]
    terminal.table(
        ("part", "time"), [(n, format_seconds(t)) for n, t in found.seconds.items()] + backends, right=(1,)
    )
    show_files(terminal, found.files)
    terminal.out.print()
    style = "bold green" if found.passed else "bold red"
    terminal.out.print(f"{'✓' if found.passed else '✗'} {found.headline}", style=style, soft_wrap=True)


def _explicit_shortfall(terminal: Terminal, found: Demo) -> None:
    """What the published decomposition leaves unexplained."""
    from analyzer.methods.summary import completeness_rows

    explicit = next(result for result in found.results if result.settings.get("terms") == "explicit")
    parts = [
        f"{row.output - row.total:.2f} of {row.output:.2f} ({row.sample})"
        for row in completeness_rows([explicit], found.names)
    ]
    terminal.out.print(f"The layers' own biases alone leave unexplained: {', '.join(parts)}.", style="dim")


def _document(found: Demo) -> dict[str, Any]:
    import json

    from analyzer.methods.summary import completeness_json
    from converters.system.environment import environment

    verification = found.model.verification
    return {
        "command": "demo",
        "passed": found.passed,
        "verification": None if verification is None else vars(verification),
        "samples": [
            {
                "name": name,
                "predictions": [vars(prediction) for prediction in found.predictions[index]],
                "completeness": [
                    {"method": result.method, **result.settings, **(completeness_json(result, index) or {})}
                    for result in found.results
                ],
            }
            for index, name in enumerate(found.names)
        ],
        "check": json.loads(found.check.to_json()),
        "seconds": found.seconds,
        "files": [str(path) for path in found.files],
        "environment": environment(),
    }
