"""The folders are complete: their READMEs name files and options that exist, and no file names a registry."""

from __future__ import annotations

import re
import shlex

import pytest

from tests.examples.explainer.programs import EXAMPLES
from tools.site.commands import commands

FOLDERS = ("browser", "csharp", "node", "python")


def test_every_folder_has_a_readme():
    assert tuple(sorted(path.parent.name for path in EXAMPLES.glob("*/README.md"))) == FOLDERS


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_files_and_options_of_a_readme_exist(folder):
    text = (EXAMPLES / folder / "README.md").read_text(encoding="utf-8")
    made = {
        "explainer.onnx",
        "gradient.onnx",
        "model.onnx",
        "cat.jpg",
        "x.npy",
        "map.npy",
        "FILE.npy",
        "explained_0.png",
    }
    vendored = {name for name in re.findall(r"[\w./-]+", text) if "ort" in name}
    named = {*re.findall(r"[\w./-]+\.(?:py|mjs|cs|html|onnx|npy|png|jpg)\b", text)} - made - vendored
    assert [name for name in named if not (EXAMPLES / folder / name).is_file()] == []
    known = {
        title: {name for p in command.get_params(context) for name in [*p.opts, *p.secondary_opts]}
        for title, command, context in commands()
    }
    lines = [shlex.split(line) for line in text.splitlines() if line.startswith("onnxplain ")]
    assert lines
    for _, command, *words in lines:
        assert {word for word in words if word.startswith("-")} <= known[f"onnxplain {command}"]


def test_no_file_names_a_registry():
    for path in (path for path in EXAMPLES.rglob("*") if path.is_file()):
        assert not re.search(
            r"https?://(?!localhost)|package-lock|\"resolved\"", path.read_text(encoding="utf-8")
        ), path
