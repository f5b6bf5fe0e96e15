"""Run the examples as a reader would: in a copy of their folder, with the packages that their package.json names.

`node_modules(folder)` installs the packages of all examples once; `browse(...)` serves a folder and opens a page.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.server
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.analyzer.figures.browser import browser

EXAMPLES = Path(__file__).parents[3] / "examples" / "explainer"
TYPESCRIPT = "5.9.3"
SECONDS = 120
OFFLINE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ENETUNREACH", "ETIMEDOUT")


class Offline(Exception):
    """The packages cannot be installed on this machine."""


def node_modules(folder: Path) -> Path:
    """Return the folder of the packages, installed into `folder` by the first process that asks."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise Offline("Node and npm are not installed")
    packages: dict[str, str] = {"typescript": TYPESCRIPT}
    for example in ("node", "browser"):
        described = json.loads((EXAMPLES / example / "package.json").read_text())
        packages |= described["dependencies"] | described.get("optionalDependencies", {})
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "package.json").is_file():
            _install(folder, packages)
    return folder / "node_modules"


def _install(folder: Path, packages: dict[str, str]) -> None:
    named = [f"{name}@{version}" for name, version in packages.items()]
    flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--prefix", str(folder)]
    command = ["npm", "install", *flags, *named]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=4 * SECONDS)
    if done.returncode and any(reason in done.stderr for reason in OFFLINE):
        raise Offline("npm reaches no registry")
    assert done.returncode == 0, done.stderr


def copied(example: str, folder: Path, packages: Path | None = None) -> Path:
    """Copy an example to a folder, and give it the installed packages."""
    place = Path(shutil.copytree(EXAMPLES / example, folder / example))
    if packages is not None:
        (place / "node_modules").symlink_to(packages)
    return place


def run(*command: str | Path, folder: Path, code: int = 0) -> str:
    """Run a program in a folder, and return its output; its error message where `code` is not 0."""
    words = [str(word) for word in command]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, timeout=SECONDS)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stderr if code else done.stdout


@contextlib.contextmanager
def _served(folder: Path, found: queue.Queue[Any]) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_POST(self) -> None:
            found.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def browse(folder: Path, page: str, profile: Path) -> Any:
    """Open a page of a folder in Chromium, and return what the page posts to the server."""
    found: queue.Queue[Any] = queue.Queue()
    with _served(folder, found) as address:
        command = [
            str(browser()), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            "--no-first-run", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--remote-debugging-port=0",
            f"--user-data-dir={profile}", f"{address}/{page}",
        ]  # fmt: skip
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            return found.get(timeout=SECONDS)
        finally:
            process.terminate()
            process.wait(timeout=30)
