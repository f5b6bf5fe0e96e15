"""Hooks of mkdocs: they add the generated pages, and make the links of all pages lead to pages of the site."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]


def on_startup(**_: Any) -> None:
    """Make the packages of the repository importable. mkdocs restores the path after it has read this file."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages; a page of the same name in docs/ is their first part."""
    from tools.site.pages import generated

    for place, text in generated(ROOT).items():
        if (found := files.get_file_from_path(place)) is not None:
            files.remove(found)
        files.append(File.generated(config, place, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Rewrite links between files of the repository."""
    from tools.site.pages import site_links, sources

    place = page.file.src_uri
    origin = {site: file for file, site in sources(ROOT).items()}.get(place, f"docs/{place}")
    return site_links(markdown, origin, lambda path: files.get_file_from_path(path) is not None)
