"""Open pages in a real Chromium, without a network, and read what the reader would see.

`browser()` is the executable, or None where none is installed; `opened(pages, widths)` loads every page in frames of
the given widths and measures each from within.
"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLAYWRIGHT = Path.home() / ".cache" / "ms-playwright"
SECONDS = 120

# In the wrapper alone: the pages themselves forbid scripts.
MEASURE = """
const found = [];
for (const frame of document.querySelectorAll("iframe")) {
  const inner = frame.contentDocument, root = inner.documentElement, verdict = inner.querySelector(".verdict");
  const box = verdict ? verdict.getBoundingClientRect() : {width: 0, height: 0, top: 0};
  found.push({
    name: frame.title, width: frame.clientWidth, scroll_width: root.scrollWidth,
    verdict: [box.width, box.height, box.top],
    scripts: inner.scripts.length, handlers: inner.querySelectorAll("[onload], [onerror]").length,
    text: verdict ? verdict.innerText : "", title: inner.title, scheme: getComputedStyle(inner.body).backgroundColor,
    fetched: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
    broken: [...inner.images].filter(image => !image.naturalWidth).length, images: inner.images.length,
    points: inner.querySelectorAll("svg circle").length,
  });
}
document.querySelector("#found").textContent = JSON.stringify({found, ran: window.ran === true});
"""


@dataclass(frozen=True)
class Opened:
    """What was measured in each frame, whether a page ran a script, and what the console said."""

    frames: list[dict]
    ran: bool
    console: list[str]


def browser() -> str | None:
    """A Chromium on the PATH, or one that Playwright keeps."""
    on_path = next((path for name in NAMES if (path := shutil.which(name))), None)
    kept = sorted(PLAYWRIGHT.glob("chromium*/chrome-linux*/*")) if PLAYWRIGHT.is_dir() else []
    executables = [path for path in kept if path.name in ("chrome", "headless_shell")]
    return on_path or (str(executables[-1]) if executables else None)


def opened(pages: Mapping[str, str], widths: Sequence[int], folder: Path, *, dark: bool = False) -> Opened:
    """Load every page at every width."""
    frames = "".join(
        f'<iframe title="{html.escape(name)}" style="width: {width}px; height: 900px; border: 0" '
        f'srcdoc="{html.escape(page, quote=True)}"></iframe>'
        for name, page in pages.items()
        for width in widths
    )
    wrapper = folder / "wrapper.html"
    wrapper.write_text(
        f'<!doctype html><meta charset="utf-8"><body>{frames}<pre id="found"></pre>'
        f"<script>addEventListener('load', () => {{ {MEASURE} }})</script>",
        encoding="utf-8",
    )
    schemes = ["--blink-settings=preferredColorScheme=0"] if dark else []
    command = [
        str(browser()), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", f"--user-data-dir={folder / 'profile'}",
        *schemes, "--window-size=1400,900", "--dump-dom", wrapper.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    told = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert told is not None, done.stderr[-2000:]
    content = json.loads(html.unescape(told.group(1)))
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return Opened(content["found"], content["ran"], console)
