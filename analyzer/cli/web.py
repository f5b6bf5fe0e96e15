"""`onnxplain web`: an explainer file becomes a static web page that runs it in the reader's browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analyzer.cli.destinations import refuse_unwritable
from analyzer.cli.options import JsonOption
from analyzer.cli.terminal import Terminal

TokenizerOption = Annotated[
    Path | None,
    typer.Option(
        "--tokenizer",
        metavar="FILE",
        help="The tokenizer.json of a text model. Default: the one in the file.",
    ),
]


def web(
    explainer: Annotated[
        Path,
        typer.Argument(
            metavar="EXPLAINER",
            help="An .onnx file that onnxplain export wrote; of an image model with --with-preprocessing.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder to write: a new one, or an earlier site.")
    ],
    sample: Annotated[
        list[str] | None,
        typer.Option(
            "--sample",
            metavar="FILE|TEXT",
            help="A picture that the page offers; of a text model, a sentence. Repeat for more.",
        ),
    ] = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Heading of the page. Default: the name of the file.")
    ] = None,
    tokenizer: TokenizerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a static web page that explains pictures or texts in the browser, without a server."""
    from analyzer.explainer.web import write_site

    terminal = Terminal(as_json)
    refuse_unwritable(output)
    with terminal.progress("writing the page"):
        site = write_site(explainer, output, title=title, samples=sample or (), tokenizer=tokenizer)
    terminal.out.print(f"{output}  ({len(site.files)} files, {site.bytes / 1e6:.1f} MB)", soft_wrap=True)
    terminal.remark(f"Show it with: onnxplain serve {output}. Any web server can serve the folder as it is.")
    terminal.document(
        {
            "command": "web",
            "explainer": str(explainer),
            "output": str(output),
            "kind": site.kind,
            "title": site.title,
            "method": site.method,
            "bytes": site.bytes,
            "files": list(site.files),
        }
    )
