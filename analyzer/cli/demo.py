"""`onnxplain demo`: a trained classifier and two photographs, from conversion to report, or to a web page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.analyze_view import show_completeness, show_predictions
from analyzer.cli.check_view import show_agreement
from analyzer.cli.destinations import refuse_unwritable
from analyzer.cli.options import JsonOption, split_list
from analyzer.cli.serve import NoOpenOption, PortOption
from analyzer.cli.serve import show as show_site
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
    quick: Annotated[bool, typer.Option("--quick", help="Explain only: leave the check out.")] = False,
    web: Annotated[
        bool,
        typer.Option(
            "--web", help="Write the web page of the network's explainer, serve it and open it instead."
        ),
    ] = False,
    port: PortOption = None,
    no_open: NoOpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Explain a cat and a cup of coffee with a trained network, then check the numbers on other frameworks."""
    from analyzer.backends import BACKENDS
    from analyzer.checks.comparison import STEPS
    from analyzer.demo import PARTS, TITLE, checked, explain

    terminal = Terminal(as_json)
    if output.exists() and not output.is_dir():
        raise UserError(
            f"{output}: a file, where -o takes a folder. Fix: give -o a folder that is new or exists"
        )
    if quick and backends is not None:
        raise UserError("--quick leaves out the check, which --backends is for. Fix: give one of them")
    refuse_unwritable(output)
    if web:
        if quick or backends is not None:
            raise UserError("--web checks nothing, which --quick and --backends are for. Fix: leave them out")
        _show_site(terminal, output, port, opened=not no_open)
        return
    if port is not None or no_open:
        raise UserError("--port and --no-open are of the web page. Fix: give --web too")
    chosen = split_list(backends) if backends is not None else None
    with terminal.steps("explaining", PARTS) as step:
        found = explain(output, step=step)
    terminal.out.print(TITLE, style="bold")
    _show_explained(terminal, found)
    if not quick:
        with terminal.steps("checking", len(chosen or BACKENDS) + STEPS) as step:
            found = checked(found, backends=chosen, step=step)
        _show_checked(terminal, found)
    _show_end(terminal, found)
    terminal.document(_document(found))
    if not found.passed:
        raise typer.Exit(1)


def _show_site(terminal: Terminal, folder: Path, port: int | None, *, opened: bool) -> None:
    """Write the page of the network's explainer, and serve it until Ctrl-C."""
    from analyzer.demo import SITE_PARTS, write_demo_site

    with terminal.steps("preparing", SITE_PARTS) as step:
        site = write_demo_site(folder, step=step)
    show_site(terminal, site.folder, port, opened=opened)


def _show_explained(terminal: Terminal, found: Demo) -> None:
    """What the model said and where it looked, then the sums."""
    from analyzer.methods.summary import completeness_rows

    show_predictions(terminal, found.names, found.predictions)
    terminal.heading("Pictures")
    for path in found.files:
        if path.name.endswith(("full-grad-complete.png", "integrated-gradients.png")):
            terminal.out.print(f"  {path}", soft_wrap=True)
    terminal.out.print(f"  {found.page}  all of them on one page", soft_wrap=True)
    show_completeness(terminal, completeness_rows(found.results, found.names))
    _explicit_shortfall(terminal, found)


def _show_checked(terminal: Terminal, found: Demo) -> None:
    """What the backends say to one another."""
    verified = found.model.verification
    show_agreement(terminal, found.check.rows, found.check.completeness)
    for name, reason in found.check.skipped.items():
        terminal.out.print(f"not run: {name} ({reason})", style="dim", soft_wrap=True)
    if verified is not None:
        terminal.remark(
            f"The ONNX file against {verified.reference}: relative L2 {verified.relative_l2:.1e} at the outputs."
        )


def _show_end(terminal: Terminal, found: Demo) -> None:
    """The time, the files and the verdict."""
    from analyzer.figures.numbers import format_seconds

    times = ", ".join(f"{name} {format_seconds(time)}" for name, time in found.seconds.items())
    terminal.heading("Time")
    terminal.paragraph(times)
    terminal.heading("Written")
    terminal.paragraph(f"{len(found.files)} files in {found.folder}. Open {found.page} in a browser.")
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
        "check": None if found.check is None else json.loads(found.check.to_json()),
        "seconds": dict(found.seconds),
        "files": [str(path) for path in found.files],
        "environment": environment(),
    }
