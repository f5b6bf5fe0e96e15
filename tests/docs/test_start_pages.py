"""The pages for newcomers: every block of code runs, every tab of the tutorial explains an image, numbers are true."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import onnxplain
from analyzer.cli import main
from converters import convert, load
from tests.docs.page import Page
from tests.docs.test_full_grad_page import classifier

PAGES = ("index.md", "which_method.md", "how_it_works.md", "faq.md")
TUTORIAL = Page("five_minutes.md")
SIZE = 224


@pytest.fixture
def names(tmp_path, monkeypatch):
    """What the pages say their blocks are given. Pictures they save go to a temporary folder."""
    monkeypatch.chdir(tmp_path)
    net = classifier()
    return {
        "net": net,
        "probabilities": nn.Sequential(*net, nn.Softmax(dim=1)).eval(),
        "images": np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32),
    }


@pytest.mark.parametrize("name", PAGES)
def test_every_block_runs_in_order(name, names):
    assert Page(name).run(names) >= 1


def test_the_page_on_limits_compares_a_saturated_probability_with_its_logit(names):
    with torch.no_grad():
        names["net"][7].weight *= 2000
    assert Page("limits.md").run(names) >= 1
    leaf = torch.from_numpy(names["images"]).requires_grad_()
    names["net"](leaf)[:, 1].sum().backward()
    np.testing.assert_allclose(names["at_logit"].attributions, leaf.grad.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(names["same"].attributions, names["at_logit"].attributions, rtol=1e-5)
    p = names["saturated"].output
    steepness = np.abs(names["saturated"].attributions).max() / np.abs(names["at_logit"].attributions).max()
    assert (p * (1 - p)).max() < 1e-3 and steepness < 1e-3


def image_net() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 7, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )
    return net.eval()


def keras_net():
    import keras

    return keras.Sequential(
        [
            keras.layers.Input((SIZE, SIZE, 3)),
            keras.layers.Conv2D(4, 7, strides=8, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3),
        ]
    )


@pytest.fixture
def photograph(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "cat.jpg")
    torch.manual_seed(0)
    return tmp_path


@pytest.mark.parametrize("tab", ["PyTorch", "Keras", "ONNX"])
def test_every_tab_explains_a_photograph_and_the_rest_of_the_page_continues(tab, photograph):
    net = image_net()
    if tab == "Keras":
        keras_net().save("classifier.keras")
    convert(net, torch.zeros(1, 3, SIZE, SIZE), class_names=["cat", "dog", "emu"]).save("model.onnx")
    page = Page("five_minutes.md")
    rest = page.text[page.text.index("\n![A cat") :]
    # The rest of the page takes the same model and images; it runs once.
    page.text = page.tab(tab) + (rest if tab == "ONNX" else "")
    names = {"net": net, "names": ["cat", "dog", "emu"]}
    assert page.run(names) == (3 if tab == "ONNX" else 1)
    assert names["fg"].map.shape == (1, SIZE, SIZE) and names["fg"].completeness.error.max() < 1e-4
    assert (photograph / "why.png").stat().st_size > 10_000
    if tab == "ONNX":
        assert names["report"].passed and names["ig"].completeness.error.max() < 0.05


def test_the_commands_of_the_tutorial_explain_a_photograph(photograph, monkeypatch):
    (photograph / "shop.py").write_text(
        "import torch\n\ndef factory():\n    torch.manual_seed(0)\n"
        "    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 7, stride=8), torch.nn.ReLU(),\n"
        "        torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(16, 3))\n"
        "    return net.eval()\n"
    )
    (photograph / "names.txt").write_text("cat\ndog\nemu\n")
    monkeypatch.syspath_prepend(photograph)
    (block,) = TUTORIAL.blocks("sh")
    commands = [shlex.split(line)[1:] for line in block[1].replace("\\\n", " ").splitlines()]
    assert [command[0] for command in commands] == ["convert", "analyze"]
    for command in commands:
        assert main([word.replace("package.module", "shop") for word in command]) == 0
    model = load("model.onnx")
    assert model.class_names == ("cat", "dog", "emu") and model.preprocessing.size == (SIZE, SIZE)
    assert Path("out/report.html").is_file() and list(Path("out").glob("*full-grad*.png"))


def test_the_table_of_methods_names_methods_that_there_are():
    text = Page("which_method.md").text
    named = set(re.findall(r"`(\w+)(?:\([^`]*\))?`", text)) - {"Target", "compare"}
    called = {name for name in named if "_" in name and not name.startswith("baseline")}
    assert (
        len(called) >= 12 and [name for name in called if not callable(getattr(onnxplain, name, None))] == []
    )
