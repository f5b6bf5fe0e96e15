"""The words that decide a sentence of the grammar have its attribution, and autograd of the network says the same."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from PIL import Image

from analyzer import differentiate
from converters import convert

reviews = importlib.import_module("reviews")
script = importlib.import_module("05_text")


@pytest.fixture(scope="module")
def net():
    module, accuracy = reviews.train_reviews()
    assert accuracy > 0.95
    return module


@pytest.fixture(scope="module")
def sentences():
    return reviews.sentences(24, np.random.default_rng(7))


@pytest.fixture(scope="module")
def explained(net, sentences):
    tokens = reviews.encode([sentence.words for sentence in sentences])
    return tokens, script.explain(differentiate(convert(net, tokens[:1])), tokens)


def native_scores(net, tokens: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Per token, by autograd of the PyTorch network in float64 at 128 midpoints of the straight line."""
    exact = reviews.TextTransformer().double()
    exact.load_state_dict(net.state_dict())
    end = exact.embedding(torch.from_numpy(tokens)).detach()
    begin = torch.from_numpy(start).expand_as(end)
    total = torch.zeros_like(end)
    for alpha in (np.arange(128) + 0.5) / 128:
        point = (begin + alpha * (end - begin)).requires_grad_()
        logits = exact.head(exact.blocks(point + exact.positions).mean(1))
        total += torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), point)[0] / 128
    return ((end - begin) * total).sum(-1).numpy()


@pytest.mark.parametrize("baseline", ["padding tokens", "zero vectors"])
def test_scores_are_those_of_autograd_in_double_precision(net, explained, baseline):
    tokens, results = explained
    padding = net.embedding(torch.zeros(1, reviews.LENGTH, dtype=torch.int64)).double().numpy()
    start = padding if baseline == "padding tokens" else np.zeros_like(padding)
    found, expected = results[baseline].token_scores(), native_scores(net, tokens, start)
    assert results[baseline].converged.all()
    # Five times the tolerance of the sum is what the map is held to.
    distance = np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)
    assert distance.max() <= 5 * script.TOLERANCE


def test_the_words_that_decide_have_the_attribution(explained, sentences):
    scores = np.abs(explained[1]["padding tokens"].token_scores())
    shares, first = [], []
    for sentence, row in zip(sentences, scores, strict=True):
        deciding = np.array(sentence.deciding)
        own = row[: len(deciding)]
        shares.append(own[deciding].sum() / row.sum())
        first.append(deciding[own.argmax()])
    assert np.mean(first) >= 0.95
    assert np.mean(shares) >= 0.75


def test_padding_gets_nothing_from_padding_and_something_from_zero(explained):
    tokens, results = explained
    padded = tokens == reviews.IDS[reviews.PADDING]
    assert not results["padding tokens"].token_scores()[padded].any()
    assert np.abs(results["zero vectors"].token_scores()[padded]).sum() > 1


def test_a_negation_turns_the_sentence_round_and_gets_the_credit(net):
    words = [
        ("the", "food", "was", *rest, ".")
        for rest in (("good",), ("not", "good"), ("bad",), ("never", "bad"))
    ]
    tokens = reviews.encode(words)
    found = script.explain(differentiate(convert(net, tokens[:1])), tokens)["padding tokens"]
    assert [output > 0 for output in found.output] == [True, False, False, True]
    scores = found.token_scores()
    for row, place, positive in zip(scores, (3, 3, 3, 3), (True, False, False, True), strict=True):
        assert np.abs(row).argmax() == place
        assert (row[place] > 0) == positive


def test_the_example_prints_and_draws_what_it_found(tmp_path, capsys, monkeypatch, net):
    monkeypatch.setattr(script, "train_reviews", lambda: (net, 1.0))
    assert script.main(["-o", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert told.count("the tokens sum to") == 2 * len(script.SENTENCES)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        "words.png",
        "words.html",
        "reviews.onnx",
        "tokens.npy",
        "padding.npy",
        "vocabulary.txt",
    }
    page = (tmp_path / "words.html").read_text()
    assert page.count(">not</b>") == page.count(">never</b>") == 2
    with Image.open(tmp_path / "words.png") as picture:
        assert min(picture.size) > 800
