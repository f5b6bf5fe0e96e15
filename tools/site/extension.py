"""The extension of griffe that gives mkdocstrings the docstrings as Markdown."""

from __future__ import annotations

from typing import Any

import griffe

from tools.site.docstrings import as_markdown


class Entries(griffe.Extension):
    """Rewrite every docstring with `as_markdown`."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
