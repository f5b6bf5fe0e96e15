"""Take the picture of the demo's web page: `python docs/make_web.py`. Writes docs/images/web.jpg.

Needs the extra "demo" and a Chromium. With `-o FOLDER` it writes all pictures there instead: wide and narrow, light and
dark, and the view with signs.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import threading
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from analyzer.demo import write_demo_site
from analyzer.explainer.web import serve
from tests.analyzer.explainer.web.chrome import Chrome

PICTURE = Path(__file__).parent / "images" / "web.jpg"
WIDTH, NARROW, HEIGHT = 1400, 360, 900
# By name: the width, whether dark, and the view; the first is that of the docs.
SHOTS = {
    "web": (WIDTH, False, "importance"),
    "web-signed": (WIDTH, False, "signed"),
    "web-dark": (WIDTH, True, "importance"),
    "web-360": (NARROW, False, "importance"),
    "web-360-dark": (NARROW, True, "signed"),
}


def shots(names: list[str]) -> dict[str, bytes]:
    """Write the demo's site, and return a PNG of each view."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        site = write_demo_site(Path(folder) / "demo")
        with serve(site.folder, 0) as server, Chrome(Path(folder)) as chrome:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            for name in names:
                width, dark, view = SHOTS[name]
                page = chrome.page(width, HEIGHT, dark=dark)
                page.open(server.address)
                page.until("!document.querySelector('#check').hidden")
                page.run(f"document.querySelector('#views input[value={view}]').click()")
                found[name] = page.screenshot()
            server.shutdown()
    return found


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description="Take the picture of the demo's web page.")
    parser.add_argument("-o", "--output", type=Path)
    folder = parser.parse_args().output
    if folder is None:
        PICTURE.parent.mkdir(exist_ok=True)
        image = Image.open(io.BytesIO(shots(["web"])["web"]), formats=("PNG",)).convert("RGB")
        image.save(PICTURE, quality=88, subsampling=0, optimize=True, progressive=True)
        return
    for name, png in shots(list(SHOTS)).items():
        (folder / f"{name}.png").write_bytes(png)


if __name__ == "__main__":
    main()
