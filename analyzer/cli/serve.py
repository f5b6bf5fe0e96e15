"""`onnxplain serve`: show a site on this computer, until Ctrl-C."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analyzer.cli.options import JsonOption
from analyzer.cli.terminal import Terminal, UserError

if TYPE_CHECKING:
    from analyzer.explainer.web.server import Server

PortOption = Annotated[
    int | None,
    typer.Option(
        "--port",
        min=0,
        max=65535,
        help="Port on 127.0.0.1; 0 takes a free one. Default: 8000, or a free one.",
    ),
]
NoOpenOption = Annotated[
    bool, typer.Option("--no-open", help="Print the address, and leave the browser closed.")
]


def serve(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A site that onnxplain web wrote.")],
    port: PortOption = None,
    no_open: NoOpenOption = False,
    as_json: JsonOption = False,
) -> None:
    """Serve a site on 127.0.0.1 and open it in the browser. Ctrl-C ends it."""
    terminal = Terminal(as_json)
    show(terminal, folder, port, opened=not no_open)


def show(terminal: Terminal, folder: Path, port: int | None, *, opened: bool) -> None:
    """Serve a site until Ctrl-C. port: None takes 8000, or a free one where that is taken. opened: in the browser."""
    with _server(folder, port) as server:
        terminal.out.print(f"{server.address}  shows {folder}. Ctrl-C ends it.", soft_wrap=True)
        terminal.document({"command": "serve", "folder": str(folder), "address": server.address})
        # Whoever reads a pipe waits for the address.
        sys.stdout.flush()
        if opened and _has_screen():
            threading.Thread(target=webbrowser.open, args=(server.address,), daemon=True).start()
        with suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
    terminal.note("The server has ended.")


def _server(folder: Path, port: int | None) -> Server:
    from analyzer.explainer.web.server import PORT
    from analyzer.explainer.web.server import serve as served

    try:
        return served(folder, PORT if port is None else port)
    except OSError as error:
        if port is None:
            return served(folder, 0)
        raise UserError(
            f"--port {port}: the port cannot be used ({error.strerror}). Fix: give another, or 0 for a free one"
        ) from error


def _has_screen() -> bool:
    """Return whether a browser has a screen to open on; a browser of the terminal would take the terminal."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())
