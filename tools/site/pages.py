"""The generated pages of the site, from files outside docs/ to Markdown. Needs no mkdocs.

`generated(root)` returns {path in the site: Markdown}. The pages are the command reference, the notebooks, the source
of every example, and the Markdown files at the root of the repository. `site_links` rewrites the links of a page, which
lead to files of the repository, so that they lead to pages of the site.
"""

from __future__ import annotations

import inspect
import operator
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

from tools.site.commands import command_reference
from tools.site.notebooks import notebook_markdown

ROOT_FILES = {
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changelog.md",
    "SECURITY.md": "project/security.md",
}
COMMANDS = "commands.md"
API = "api.md"
LINK = re.compile(r"(\]\(|\bsrc=\"|\bhref=\")([^)\s#:\"]+)(#[^)\s\"]*)?(?=[)\"])")


def site_path(path: str) -> str:
    """Return the place in the site of a file of the repository: docs/x.md is x.md, SECURITY.md a page of its own."""
    if path in ROOT_FILES:
        return ROOT_FILES[path]
    if path in ("README.md", "docs/README.md"):
        return "index.md"
    if path.startswith("examples/") and path.endswith((".py", ".ipynb")):
        return posixpath.splitext(path)[0] + ".md"
    return path.removeprefix("docs/")


def sources(root: Path) -> dict[str, str]:
    """Return {file of the repository: place in the site} of all files outside docs/ that become pages."""
    files = [*ROOT_FILES, *(str(p.relative_to(root)) for p in examples(root))]
    return {file: site_path(file) for file in files}


def examples(root: Path) -> list[Path]:
    """Return the scripts and notebooks in examples/."""
    folder = root / "examples"
    return sorted([*folder.glob("*.py"), *folder.glob("notebooks/*.ipynb")])


def generated(root: Path) -> dict[str, str]:
    """Return the Markdown of every generated page, by its place in the site."""
    pages = {place: _page(root / file) for file, place in sources(root).items()}
    docs = root / "docs"
    pages[COMMANDS] = (docs / COMMANDS).read_text(encoding="utf-8") + command_reference()
    pages[API] = complete_api((docs / API).read_text(encoding="utf-8"))
    return pages


def _page(path: Path) -> str:
    if path.suffix == ".ipynb":
        return notebook_markdown(path)
    text = path.read_text(encoding="utf-8")
    return text if path.suffix == ".md" else f"# {path.name}\n\n```python\n{text}```\n"


def complete_api(text: str) -> str:
    """Return the API page with every public name, each by the module that defines it, as mkdocstrings reads it.

    Names that the page does not mention are added at the end.
    """
    import onnxplain

    missing = sorted(
        {*onnxplain.__all__} - {"__version__"} - set(re.findall(r"(?:onnxplain\.|`)(\w+)", text))
    )
    text += "\n## More names\n\n" * bool(missing) + "".join(f"::: onnxplain.{name}\n\n" for name in missing)
    return re.sub(r"^::: onnxplain\.([\w.]+)", lambda match: _reference(match[1]), text, flags=re.MULTILINE)


def _reference(name: str) -> str:
    """Return the directive of mkdocstrings for a public name; of a constant, its value."""
    import onnxplain

    found = operator.attrgetter(name)(onnxplain)
    if inspect.ismodule(found):
        return f"::: {found.__name__}"
    if not hasattr(found, "__qualname__"):
        return f"`{name}` is `{found!r}`."
    return f"::: {found.__module__}.{found.__qualname__}"


def site_links(text: str, file: str, exists: Callable[[str], bool]) -> str:
    """Rewrite the links of the Markdown in `file`, a path in the repository, for the site.

    exists: whether the site has a page or a file at a place. A link to another file of the repository, which the site
    does not have, becomes its text alone.
    """
    here = posixpath.dirname(site_path(file))
    folder = posixpath.dirname(file)

    def rewrite(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        place = site_path(target)
        if not exists(place):
            return match[0]
        return f"{match[1]}{posixpath.relpath(place, here or '.')}{match[3] or ''}"

    return LINK.sub(rewrite, text)
