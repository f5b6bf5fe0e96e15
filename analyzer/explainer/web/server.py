"""Serve a site on this computer alone: `serve(folder)`.

From a folder to HTTP on 127.0.0.1, with the MIME types that modules and WebAssembly need, and headers that forbid the
page every other origin. Prints nothing. Raises ExportError for a folder without a page, OSError for a port that is
taken.
"""

from __future__ import annotations

import http.server
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from analyzer.errors import ExportError

HOST, PORT = "127.0.0.1", 8000
# The page states the same policy; the header holds in its worker, too.
POLICY = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'"
)
TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".css": "text/css",
    ".html": "text/html; charset=utf-8",
    ".wasm": "application/wasm",
    ".json": "application/json",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the folder alone: no listing, no log on stderr."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **TYPES}

    def end_headers(self) -> None:
        """Add the policy. The browser keeps no file: a site that is written again shows at once."""
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def list_directory(self, path: Any) -> None:
        """Refuse to list a folder."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Keep stderr for errors of the command."""


class Server(http.server.ThreadingHTTPServer):
    """A server that ends with its command. The browser may close connections at any time."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a closed connection: it is not an error of the command."""

    @property
    def address(self) -> str:
        """Return the address of the page."""
        return f"http://{HOST}:{self.server_port}/"


def serve(folder: Path, port: int = PORT) -> Server:
    """Return a server for the folder, bound to 127.0.0.1; call its `serve_forever`. port: 0 takes a free one."""
    if not (folder / "index.html").is_file():
        raise ExportError(
            f"{folder}: expected a folder with index.html, found none. Fix: write it with onnxplain web explainer.onnx "
            f"-o {folder}"
        )
    return Server((HOST, port), partial(Handler, directory=str(folder)))
