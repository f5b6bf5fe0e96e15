"""Docstrings as Markdown: their lines `name: text` become a list.

The docstrings of this repository list parameters and attributes one a line, with continuation lines indented.
"""

from __future__ import annotations

import re

ENTRY = re.compile(r"^(?P<names>[a-z_]\w*(?:\[\w+\])?(?:, [a-z_]\w*)*)(?P<note> \([^)]*\))?: (?P<text>.*)$")


def as_markdown(text: str) -> str:
    """Return the docstring with its entries as a list, and without line breaks inside a paragraph."""
    lines, inside = [], False
    for line in text.splitlines():
        if entry := ENTRY.match(line):
            if lines and lines[-1] and not inside:
                lines.append("")
            names = ", ".join(f"`{name}`" for name in entry["names"].split(", "))
            lines.append(f"- {names}{entry['note'] or ''}: {entry['text']}")
            inside = True
            continue
        if inside and line and not line.startswith(" ") and lines[-1].endswith("."):
            # A sentence after the list; a line that follows half a sentence continues it.
            lines.append("")
            inside = False
        elif not line:
            inside = False
        lines.append(line)
    return "\n".join(lines)
