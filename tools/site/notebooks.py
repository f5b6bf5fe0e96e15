"""A notebook as a page of Markdown: its text, its code, and the text and pictures of its stored outputs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ANSI = re.compile(r"\x1b\[[0-9;]*m")


def notebook_markdown(path: Path) -> str:
    """Return the page of an executed notebook. Pictures are data URLs, so the page needs no other file."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    title, *rest = (_cell(cell) for cell in cells)
    link = f"The notebook is `examples/notebooks/{path.name}`. The tests run it.\n"
    return "\n".join([title, link, *rest])


def _cell(cell: dict[str, Any]) -> str:
    source = _joined(cell["source"])
    if cell["cell_type"] == "markdown":
        return source + "\n"
    outputs = "\n".join(filter(None, (_output(output) for output in cell["outputs"])))
    return f"```python\n{source}\n```\n\n{outputs}"


def _output(output: dict[str, Any]) -> str:
    if output["output_type"] == "stream":
        return _text(_joined(output["text"])) if output["name"] == "stdout" else ""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![Output of the cell above](data:image/png;base64,{_joined(data['image/png']).strip()})\n"
    return _text(_joined(data["text/plain"])) if "text/plain" in data else ""


def _text(text: str) -> str:
    return f'<div class="output" markdown>\n\n```text\n{ANSI.sub("", text).rstrip()}\n```\n\n</div>\n'


def _joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)
