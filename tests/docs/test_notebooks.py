"""The notebooks run in one kernel. The stored outputs of their last run are small and without errors."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "examples" / "notebooks"
NAMES = ("first_steps", "finding_a_shortcut", "text", "time_series", "proving_a_port", "ship_the_explanation")
PICTURE = 100_000  # bytes


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_is_in_the_list():
    assert sorted(NAMES) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def test_every_notebook_runs():
    # Their assertions check the answers that are known. One kernel imports the frameworks once.
    together = nbformat.v4.new_notebook()
    for name in NAMES:
        together.cells += [nbformat.v4.new_code_cell("%reset -f"), *code(read(name))]
    client = NotebookClient(together, timeout=300, kernel_name="python3")
    client.execute()
    shown = [output for cell in together.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 7
    asserted = sum(cell.source.count("assert") for cell in code(together))
    assert asserted >= 12


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_are_small_and_complete(name):
    notebook = read(name)
    assert all(cell.execution_count for cell in code(notebook))
    for output in (output for cell in code(notebook) for output in cell.outputs):
        assert output.output_type in ("stream", "display_data", "execute_result")
        assert output.get("name") != "stderr" and len(output.get("text", "")) < 2_000
        picture = output.get("data", {}).get("image/png", "")
        assert len(base64.b64decode(picture)) <= PICTURE


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_notebook_leads_to_a_file(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)#:]+)\)", text)
    assert links and [link for link in links if not (FOLDER / link).is_file()] == []
