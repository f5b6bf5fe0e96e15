"""The pages on checks, ports and CI: their Python and the workflow run, their settings and links are right."""

from __future__ import annotations

import inspect
import shlex
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from analyzer.checks.tolerances import QUANTITIES
from analyzer.cli import main
from analyzer.cli.settings import allowed, read_settings
from analyzer.stored import assert_explanation
from analyzer.testing import assert_equivalent
from examples.twin import HEIGHT, WIDTH, build_twins, example_images
from tests.docs.page import Page

ROOT = Path(__file__).parents[2]
PAGE, PORT, CI = Page("checks.md"), Page("prove_a_port.md"), Page("ci.md")


def stated_port():
    """The Keras twin as a functional model, which states its inputs."""
    import keras

    net, port = build_twins(0)
    image = keras.Input((HEIGHT, WIDTH, 3))
    return net, keras.Model(image, port(image))


def test_every_block_of_python_runs_in_order(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    net, port = stated_port()
    given = {"net": net, "port": port, "images": example_images(2)[0]}
    names = dict(given)
    assert PAGE.run(names) + CI.run(names) >= 7
    assert "Conv 'node_conv2d_1' of layer 'conv2': 'getitem_3' of source is " in capsys.readouterr().out
    assert PORT.run(dict(given)) == 3
    assert "conv2" in capsys.readouterr().out.splitlines()
    tests = [name for name in names if name.startswith("test_")]
    plain = [name for name in tests if not inspect.signature(names[name]).parameters]
    assert len(plain) == 2
    for name in plain:
        names[name]()
    run_with_the_plugin(names, tmp_path)


def run_with_the_plugin(names, folder):
    """The tests of the page that use fixtures pass; another network fails the stored explanation."""

    def stored(model, inputs, method, **options):
        return assert_explanation(model, inputs, folder / "reasons.npz", method, **options)

    names["test_the_reasons_stay"](lambda *given, **options: stored(*given, update=True, **options))
    names["test_the_reasons_stay"](stored)
    names["test_the_port_is_the_same"](
        lambda a, b, *given, **options: assert_equivalent((a, b), *given, **options)
    )
    names["net"] = build_twins(1)[0]
    with pytest.raises(AssertionError, match="not the stored one"):
        names["test_the_reasons_stay"](stored)


def test_the_action_and_the_hook_are_those_of_the_repository():
    _, action, hook = (yaml.safe_load(block[1]) for block in CI.blocks("yaml"))
    (used,) = (step for step in action["steps"] if "with" in step)
    inputs = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))["inputs"]
    assert {*used["with"]} <= {*inputs}
    known = [
        one["id"] for one in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    ]
    assert [one["id"] for one in hook["repos"][0]["hooks"]] == known


def test_the_settings_are_those_that_the_command_line_reads(tmp_path):
    (block,) = PAGE.blocks("toml")
    (tmp_path / "pyproject.toml").write_text(block[1])
    settings = read_settings(tmp_path)
    stated = tomllib.loads(block[1])["tool"]["onnxplain"]
    assert list(settings.backends) == stated["backends"]
    assert (settings.steps, settings.referee) == (stated["steps"], stated["referee"])
    found = allowed([], settings)
    assert found["layer"] == found["input gradient"] == 1e-3 and found["output"] == 1e-4


def test_every_quantity_is_described():
    table = PAGE.text[PAGE.text.index("## What is compared") : PAGE.text.index("## What is excused")]
    assert [line.split("`")[1] for line in table.splitlines() if line.startswith("| `")] == list(QUANTITIES)


def test_the_workflow_runs_its_commands_and_keeps_what_they_write(tmp_path, monkeypatch):
    (block, *_) = CI.blocks("yaml")
    workflow = yaml.safe_load(block[1])
    steps = workflow["jobs"]["check"]["steps"]
    (install,) = (step["run"] for step in steps if "pip install" in step.get("run", ""))
    assert '[torch]"' in install and steps[0]["uses"].startswith("actions/checkout@")
    (tmp_path / "models.py").write_text(
        "import torch\n\n"
        "def classifier():\n"
        "    torch.manual_seed(0)\n"
        "    layers = torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 4)\n"
        "    return torch.nn.Sequential(*layers).eval(), torch.zeros(1, 3, 8, 8)\n"
    )
    np.save(
        tmp_path / "samples.npy", np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    commands = [shlex.split(step["run"]) for step in steps if step.get("run", "").startswith("onnxplain ")]
    assert [command[1] for command in commands] == ["convert", "check"]
    for command in commands:
        assert main(command[1:]) == 0, command
    upload = steps[-1]
    assert upload["if"] == "always()" and upload["uses"].startswith("actions/upload-artifact@")
    kept = upload["with"]["path"].split()
    assert kept == ["check.xml", "check.html"] and all((tmp_path / name).is_file() for name in kept)
    assert ElementTree.parse(tmp_path / "check.xml").getroot().get("failures") == "0"


def test_the_commands_shown_name_options_that_there_are(capsys):
    shown = [
        line
        for page in (PAGE, PORT, CI)
        for block in page.blocks("sh")
        for line in block[1].splitlines()
        if line.startswith("onnxplain ")
    ]
    assert len(shown) >= 3
    for line in shown:
        command = shlex.split(line)[1:]
        assert main([command[0], "--help"]) == 0
        told = capsys.readouterr().out
        for option in (word for word in command if word.startswith("--")):
            assert option in told, line


def test_what_the_page_links_to_is_there():
    assert PAGE.missing() + PORT.missing() + CI.missing() == []
