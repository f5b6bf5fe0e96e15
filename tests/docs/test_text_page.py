"""The page on text, series and tables: its code and its command run, and what it links to is there."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from analyzer.cli import main
from converters import convert
from tests.analyzer.languages import batch, decoder
from tests.analyzer.tokenizers_of import decoder_words, saved
from tests.docs.page import Page

ROOT = Path(__file__).parents[2]
PAGE = Page("text.md")
COMMAND = re.compile(r"^```\nonnxplain (.*?)^```", re.MULTILINE | re.DOTALL)
SCRIPT = re.compile(r"python (examples/\S+\.py)")
SENTENCES = ("the food was good .", "our room seemed never very fresh .")


@pytest.fixture
def reviews(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "examples"))
    return importlib.import_module("reviews")


@pytest.fixture
def names(reviews, tmp_path, monkeypatch):
    """What the page says its blocks are given, of networks that were not trained; pictures go to a temporary folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    words = [tuple(sentence.split()) for sentence in SENTENCES]
    return {
        "net": reviews.TextTransformer().eval(),
        "words": words,
        "tokens": reviews.encode(words),
        "series_net": nn.Sequential(nn.Conv1d(1, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(144, 1)),
        "signals": rng.standard_normal((2, 1, 40)).astype(np.float32),
        "table_net": nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)),
        "rows": rng.standard_normal((20, 3)).astype(np.float32),
        "folder": decoder_folder(tmp_path / "decoder"),
        "decoder": decoder()[0],
        "ids": batch()["input_ids"],
    }


def decoder_folder(folder: Path) -> Path:
    """A folder with a small decoder and its tokenizer."""
    saved(decoder_words(), folder, n_positions=16, architectures=["Test"])
    decoder()[1].save(folder / "model.onnx")
    return folder


def test_every_block_runs_in_order(names, tmp_path):
    assert PAGE.run(names) == 6
    written = {"words.png", "signals.png", "table.png", "generated.png", "generated.html"}
    assert {path.name for path in tmp_path.iterdir()} == {*written, "decoder"}
    assert ">never</b>" in names["page"]
    assert names["result"].scores.shape == (4, 7)
    # Padding has no score, and no token of the text is left out.
    assert [list(text.tokens) for text in names["coloured"]][1] == ["a", "dog", "is", "good"]


def test_the_command_runs_on_the_files_that_the_example_writes(reviews, names, tmp_path, capsys):
    convert(names["net"], names["tokens"]).save(tmp_path / "reviews.onnx")
    np.save("tokens.npy", names["tokens"])
    np.save("padding.npy", reviews.encode([()]))
    Path("vocabulary.txt").write_text("\n".join(reviews.VOCABULARY), encoding="utf-8")
    command, *others = COMMAND.findall(PAGE.text)
    assert len(others) == 3
    for other in others:
        assert main(shlex.split(other)) == 0
    assert (tmp_path / "generated" / "the-cat-sat-on-generated.html").is_file()
    capsys.readouterr()
    assert main(shlex.split(command.replace("\\\n", " "))) == 0
    told = capsys.readouterr().out
    assert all(word in told for sentence in names["words"] for word in sentence)
    assert Path("out/report.html").is_file()


def test_what_the_page_links_to_is_there():
    assert PAGE.missing() == []
    scripts = SCRIPT.findall(PAGE.text)
    assert len(scripts) == 3 and all((ROOT / script).is_file() for script in scripts)
