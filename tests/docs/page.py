"""A page of the docs under test: its blocks of code, which run in order, and its links to files."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)")


class Page:
    """A page by its name in docs/."""

    def __init__(self, name: str) -> None:
        self.path = DOCS / name
        self.text = self.path.read_text(encoding="utf-8")

    def blocks(self, language: str) -> Sequence[re.Match[str]]:
        """The blocks of code in a language, those in tabs included; group 1 is the code."""
        return list(re.finditer(rf"^ *```{language}\n(.*?)^ *```", self.text, re.MULTILINE | re.DOTALL))

    def run(self, names: dict[str, Any]) -> int:
        """Run the blocks of Python in their order on these names; how many there are."""
        found = self.blocks("python")
        for block in found:
            # The line of the page is the line of a traceback.
            lines_before = "\n" * self.text[: block.start(1)].count("\n")
            exec(compile(lines_before + textwrap.dedent(block[1]), str(self.path), "exec"), names)
        return len(found)

    def tab(self, title: str) -> str:
        """The Markdown under a tab, without its indent."""
        after = self.text.split(f'=== "{title}"\n', 1)[1]
        return textwrap.dedent(re.split(r"^\S", after, maxsplit=1, flags=re.MULTILINE)[0])

    def missing(self) -> list[str]:
        """The files that the page links to and that are not there."""
        return [link for link in LINK.findall(self.text) if not (self.path.parent / link).is_file()]
