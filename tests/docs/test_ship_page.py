"""The page on explainer files: its code runs, in Python and in Node, and what it says of the files is true."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import onnxplain as ox
from analyzer.explainer.description import INPUT_ROLES, OUTPUT_ROLES
from analyzer.methods.exporting import Hosted
from analyzer.methods.registry import METHODS
from tests.docs.page import Page
from tests.examples.explainer.programs import Offline, copied, node_modules, run

ROOT = Path(__file__).parents[2]
PAGE = Page("ship_the_explanation.md")


@pytest.fixture(scope="module")
def names():
    """What the page says its blocks are given."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    return {"model": ox.convert(net, x), "x": x}


def table(heading: str, occurrence: int = 0) -> list[str]:
    """The names in the first column of a table of the page."""
    section = PAGE.text.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    tables = re.split(r"^\|[-|]+\|$", section, flags=re.MULTILINE)[1:]
    rows = re.match(r"(?:\n\|.*)+", tables[occurrence])
    assert rows
    return [
        name for row in rows[0].strip().splitlines() for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]


def test_every_block_runs_in_order(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert PAGE.run(names) == 4
    full = ox.full_grad(names["model"], names["x"])
    np.testing.assert_allclose(names["found"]["map"], full.map, rtol=1e-4, atol=1e-6)
    assert names["about"]["method"] == "full-grad" and names["about"]["settings"]["terms"] == "all"


def test_the_block_for_node_runs(names, tmp_path, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    try:
        packages = node_modules((base.parent if base.name.startswith("popen-") else base) / "npm")
    except Offline as reason:
        pytest.skip(str(reason))
    folder = copied("node", tmp_path, packages)
    ox.export_explainer(names["model"], folder / "explainer.onnx", check_for="node")
    np.save(folder / "x.npy", names["x"])
    (folder / "page.mjs").write_text(re.sub("^    ", "", PAGE.blocks("js")[0][1], flags=re.MULTILINE))
    target, error = run("node", "page.mjs", folder=folder).split()
    assert target == f"{ox.full_grad(names['model'], names['x']).target[0]}n" and float(error) <= 1e-4


def test_the_tables_name_the_inputs_and_outputs(names, tmp_path):
    for method, settings in (
        ("full-grad", {}),
        ("integrated-gradients", {"steps": 2}),
        ("smooth-grad", {"samples": 2}),
    ):
        about = ox.export_explainer(names["model"], tmp_path / "e.onnx", method, **settings).description
        own = {
            *names["model"].proto.graph.input[0].name.split(),
            *(one.name for one in names["model"].proto.graph.output),
        }
        assert {one.name for one in about.inputs} - own <= {*table("Inputs and outputs")}
        assert {one.name for one in about.outputs} - own <= {*table("Inputs and outputs", 1)}
    roles = PAGE.text.split("by their `role`")[1].split("\n\n")[0]
    assert {*re.findall(r"`(\w+)`", roles)} - {"default"} == {*INPUT_ROLES, *OUTPUT_ROLES}


def test_the_methods_that_are_refused_are_listed():
    listed = {name for name in table("What cannot be in a file") if name in METHODS}
    assert listed == {name for name, method in METHODS.items() if isinstance(method.export, Hosted)}


def test_the_folders_of_the_page_are_there():
    assert PAGE.missing() == []
    paths = re.findall(r"`(examples/[\w./]+)`", PAGE.text)
    assert len(paths) >= 6 and all((ROOT / path).exists() for path in paths)
