"""The site: its navigation names every page, its links lead to pages, and what is generated is complete. No mkdocs."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

import onnxplain
from tests.docs.page import LINK, Page
from tools.site.commands import commands
from tools.site.docstrings import as_markdown
from tools.site.pages import complete_api, generated, site_links, sources

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
WRITTEN = sorted(path.name for path in DOCS.glob("*.md") if path.name != "README.md")
GENERATED = generated(ROOT)
# Every page of the site: its place, and the file of the repository that it comes from.
ORIGINS = {name: f"docs/{name}" for name in WRITTEN} | {place: file for file, place in sources(ROOT).items()}
SOURCE = re.compile(r'(?:src|href)="([^":#]+)"')
PICTURE, PICTURES = 150_000, 1_500_000  # bytes


def nav(entry: Any = CONFIG["nav"]) -> list[str]:
    """The pages of the navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in nav(part)]


def text_of(place: str) -> str:
    return GENERATED[place] if place in GENERATED else (DOCS / place).read_text(encoding="utf-8")


def exists(place: str) -> bool:
    return place in ORIGINS or (DOCS / place).is_file()


def test_the_navigation_has_every_page_once():
    hidden = [line.lstrip("/") for line in CONFIG["not_in_nav"].split()]
    pages = nav()
    assert len(pages) == len(set(pages))
    assert sorted([*pages, *hidden]) == sorted(ORIGINS)


def test_the_folder_page_lists_every_page():
    page = Page("README.md")
    assert [name for name in WRITTEN if f"({name})" not in page.text] == [] and page.missing() == []


@pytest.mark.parametrize("place", sorted(ORIGINS))
def test_every_link_leads_to_a_page_or_a_file(place):
    text = site_links(text_of(place), ORIGINS[place], exists)
    links = [*LINK.findall(text), *SOURCE.findall(text)]
    here = posixpath.dirname(place)
    lost = [link for link in links if not exists(posixpath.normpath(posixpath.join(here, link)))]
    assert [link for link in lost if "://" not in link and not link.startswith("data:")] == []


def test_links_between_folders_are_rewritten_for_the_site():
    text = 'see [a](../examples/03_port.py), [b](faq.md#models), [c](../CONTRIBUTING.md), <img src="gallery/x.jpg">'
    places = {"examples/03_port.md", "faq.md", "project/contributing.md", "gallery/x.jpg"}
    assert site_links(text, "docs/index.md", places.__contains__) == (
        'see [a](examples/03_port.md), [b](faq.md#models), [c](project/contributing.md), <img src="gallery/x.jpg">'
    )
    notebook = site_links("[m](../../docs/faq.md)", "examples/notebooks/text.ipynb", places.__contains__)
    assert notebook == "[m](../../faq.md)"


def options() -> dict[str, set[str]]:
    """{command: its options}."""
    return {
        title.removeprefix("onnxplain "): {
            *(name for p in command.get_params(context) for name in [*p.opts, *p.secondary_opts])
        }
        for title, command, context in commands()
    }


def test_the_command_reference_has_every_command_and_option():
    page = GENERATED["commands.md"]
    known = options()
    assert len(known) >= 6
    for command, names in known.items():
        heading = "onnxplain" if command == "onnxplain" else f"onnxplain {command}"
        section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
        assert [name for name in names if name.startswith("-") and f"{name}" not in section] == []


@pytest.mark.parametrize("name", WRITTEN)
def test_the_commands_of_a_page_exist_with_their_options(name):
    known, page = options(), Page(name)
    lines = [line for block in page.blocks("sh") for line in block[1].replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(onnxplain [a-z]+ [^`]+)`", page.text)
    for line in (line for line in lines if line.startswith("onnxplain ")):
        command, *words = shlex.split(line.replace("…", ""))[1:]
        wrong = [word for word in words if re.match(r"--?[a-z]", word) and word not in known[command]]
        assert wrong == [], line


def test_the_api_page_has_every_public_name():
    text = (DOCS / "api.md").read_text(encoding="utf-8")
    listed = re.findall(r"^::: onnxplain\.([\w.]+)$", text, re.MULTILINE)
    public = {*onnxplain.__all__} - {"__version__"}
    assert len(listed) == len(set(listed)) >= 50
    assert {name.split(".")[0] for name in listed} | {*re.findall(r"`([A-Z_]+)`", text)} == public
    whole = complete_api(text)
    assert whole.count("\n::: ") == len(listed) and "## More names" not in whole
    assert "\n::: analyzer.methods.full_grad.full_grad\n" in whole
    unlisted = complete_api("")
    assert "## More names\n" in unlisted and "\n::: analyzer.methods.xrai.xrai\n" in unlisted
    assert f"\n`CANONICAL_OPSET` is `{onnxplain.CANONICAL_OPSET}`.\n" in unlisted


def test_the_page_of_a_notebook_has_its_code_and_its_outputs():
    page = GENERATED["examples/notebooks/finding_a_shortcut.md"]
    cells = json.loads((ROOT / "examples/notebooks/finding_a_shortcut.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert page.startswith("# Find a shortcut\n") and all(f"```python\n{one}\n```" in page for one in code)
    assert page.count("data:image/png;base64,") == 2 and "share in the corner:" in page.split("```text\n")[2]


def test_the_pictures_of_the_gallery_are_small_and_all_shown():
    files = sorted((DOCS / "gallery").iterdir())
    sizes = [path.stat().st_size for path in files]
    assert max(sizes) < PICTURE and sum(sizes) < PICTURES
    text = Page("gallery.md").text
    shown = re.findall(r'src="gallery/([^"]+)"', text)
    assert {*shown} == {path.name for path in files}
    assert [name for name in re.findall(r"<code>(\w+)</code>", text) if not hasattr(onnxplain, name)] == []


def test_entries_of_a_docstring_become_a_list():
    entries = "model: a model, or\n    `differentiate`.\na, b: numbers (N,)."
    listed = "- `model`: a model, or\n    `differentiate`.\n- `a`, `b`: numbers (N,)."
    assert as_markdown(f"Return x.\n\n{entries}\nReturns y.") == f"Return x.\n\n{listed}\n\nReturns y."
    continued = "verify: compare what runs\non noise. Raises nothing."
    assert as_markdown(continued) == f"- `verify`{continued.removeprefix('verify')}"
