"""Texts on the command line: a folder with a model and a tokenizer.json, and what is explained of texts."""

import json

import numpy as np
import pytest

import onnxplain as ox
from tests.analyzer import tokenizers_of
from tests.analyzer.languages import decoder, encoder

IG = ("--method", "integrated-gradients", "--steps", "8")


@pytest.fixture(scope="module")
def folders(files):
    """Folders as exporters write them: onnx/model.onnx or model.onnx, tokenizer.json, config.json."""
    words = tokenizers_of.saved(
        tokenizers_of.decoder_words(), files / "gpt", n_positions=16, architectures=["Test"]
    )
    (words / "onnx").mkdir()
    decoder()[1].save(words / "onnx" / "model.onnx")
    bert = tokenizers_of.saved(
        tokenizers_of.word_piece(),
        files / "bert",
        architectures=["Test"],
        id2label={"0": "bad", "1": "fair", "2": "good"},
    )
    encoder()[1].save(bert / "model.onnx")
    (files / "two.txt").write_text("the cats\n\na dog is good .\n", encoding="utf-8")
    return files


def test_texts_are_explained_by_their_tokens(folders, json_of):
    status, document = json_of(
        "analyze", "bert", "two.txt", *IG, "--target", "good", "--baseline-token", "[PAD]", "--words"
    )
    assert status == 0 and [one["name"] for one in document["samples"]] == ["the cats", "a dog is good ."]
    first, second = (sample["tokens"][0] for sample in document["samples"])
    assert first["tokens"] == ["[CLS]", "the", "cats", "[SEP]"] and first["special"] == [
        True,
        False,
        False,
        True,
    ]
    texts = ox.load_texts(["the cats", "a dog is good ."], folders / "bert")
    ig = ox.integrated_gradients(
        encoder()[1], texts, 2, baseline_inputs=texts.baseline("[PAD]"), steps=8
    ).token_scores()
    np.testing.assert_allclose(first["scores"], [0, ig[0, 1], ig[0, 2] + ig[0, 3], 0], atol=1e-5)
    np.testing.assert_allclose(second["scores"], ig[1], atol=1e-5)


def test_the_next_token_of_a_decoder_is_explained(folders, command, json_of):
    status, told, notes = command("analyze", "gpt", "the cat sat on", "a dog", *IG)
    assert status == 0 and "next token '" in told and "--target next does" in notes
    status, document = json_of("analyze", "gpt", "the cat", *IG, "--target", "next: mat - next: dog")
    inputs = ox.load_texts("the cat", folders / "gpt")
    target = ox.targets.token_difference(decoder()[1], inputs, 6, 13)
    expected = ox.gradient(decoder()[1], inputs, target).output[0]
    (method,) = document["samples"][0]["methods"].values()
    assert status == 0 and method["output"] == pytest.approx(float(expected), abs=1e-5)
    likelihood = ox.targets.sequence_log_probability(decoder()[1], inputs)
    status, document = json_of("analyze", "gpt", "the cat", *IG, "--target", "likelihood")
    (method,) = document["samples"][0]["methods"].values()
    expected = ox.gradient(decoder()[1], inputs, likelihood).output[0]
    assert status == 0 and method["output"] == pytest.approx(float(expected), abs=1e-5)


def test_generated_tokens_are_explained_shown_and_written(folders, json_of, tmp_path):
    out = tmp_path / "out"
    status, document = json_of("analyze", "gpt", "the cat sat", "--generate", "3", "--steps", "8", "-o", out)
    assert status == 0
    found = ox.attribute_generation(ox.load(folders / "gpt"), "the cat sat", max_new_tokens=3, steps=8)
    (sample,) = document["samples"]
    assert [one["token"] for one in sample["generated"]] == list(found.generated)
    for row, one in enumerate(sample["generated"]):
        np.testing.assert_allclose(one["scores"], found.scores[row, : 3 + row], atol=1e-5)
    names = {path.name for path in out.iterdir()}
    stem = "the-cat-sat-generated"
    assert names == {f"{stem}.png", f"{stem}.html", "arrays.npz", "summary.json"}
    assert json.loads((out / "summary.json").read_text(encoding="utf-8"))["samples"] == document["samples"]
    np.testing.assert_allclose(np.load(out / "arrays.npz")["0/scores"], found.scores, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("gpt", "the cat", "ids.npy"), "ids.npy: a file of arrays among texts"),
        (("gpt/onnx/model.onnx", "none.npy"), "none.npy"),
        (("gpt", "the cat", "--target", "next: cat sat"), "expected one token"),
        (("gpt", "the cat", "--baseline-token", "?"), "a method with a path"),
        (("gpt", "the cat", "--generate", "2", "--method", "smooth-grad"), "vectors of tokens"),
        (("gpt", "the " * 20, "--generate", "2"), "at most 16 tokens"),
        (("plain.onnx", "a text of words"), "a text of words: no such file"),
        (("gpt", "missing.txt"), "missing.txt: No such file"),
    ],
)
def test_what_does_not_fit_is_one_line(folders, command, arguments, reason):
    np.save(folders / "ids.npy", np.array([[1, 2]]))
    status, _, told = command("analyze", *arguments)
    assert status == 2 and reason in told
    assert sum(line.startswith("onnxplain: ") for line in told.strip().splitlines()) == 1
