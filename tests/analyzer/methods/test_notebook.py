"""A notebook shows pictures of results without any setting: of `plot`, and of a result at the end of a cell."""

from __future__ import annotations

import base64

import nbformat
from nbclient import NotebookClient

SETUP = """
import numpy as np, torch
import onnxplain as ox
torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(),
    torch.nn.Linear(4, 3),
).eval()
x = np.random.default_rng(0).uniform(size=(1, 3, 16, 16)).astype("float32")
model = ox.convert(net, x, class_names=["cat", "dog", "emu"])
fg = ox.full_grad(model, x, target=1)
"""


def executed(*cells: str) -> list[list[nbformat.NotebookNode]]:
    """The outputs of cells that run one after the other in a new kernel."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    return [cell.outputs for cell in notebook.cells]


def pictures(outputs: list[nbformat.NotebookNode]) -> list[bytes]:
    """The PNG images that a cell shows."""
    shown = [one.data["image/png"] for one in outputs if "image/png" in one.get("data", {})]
    return [base64.b64decode(text) for text in shown]


def test_a_notebook_shows_plots_and_results_once():
    _, plot, bare, inline, report = executed(
        SETUP,
        "fg.plot(x)",
        "fg",
        "import matplotlib.pyplot as plt\nfg.plot(x)",
        "ox.check(model, x, backends=['onnxruntime', 'torch'])",
    )
    for outputs in (plot, inline):
        (picture,) = pictures(outputs)
        assert picture.startswith(b"\x89PNG") and len(picture) > 5_000
    (result,) = bare
    assert "data:image/png;base64," in result.data["text/html"]
    assert "dog" in result.data["text/html"]
    assert len(result.data["text/plain"].splitlines()) <= 5
    assert "all agree" in report[-1].data["text/html"]
