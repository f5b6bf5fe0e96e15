"""Texts become the inputs of a model by a tokenizer.json, and tokens join to words."""

import json
import sys

import numpy as np
import pytest

import onnxplain as ox
from analyzer.figures import ScoredTokens
from analyzer.texts import open_tokenizer
from analyzer.texts.pieces import words_of
from tests.analyzer import tokenizers_of
from tests.analyzer.languages import decoder, encoder

KINDS = ("byte_level", "word_piece", "metaspace", "decoder_words")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with a tokenizer of each kind, and the small models in two of them."""
    root = tmp_path_factory.mktemp("texts")
    found = {
        kind: tokenizers_of.saved(
            getattr(tokenizers_of, kind)(), root / kind, n_positions=16, architectures=["Test"]
        )
        for kind in KINDS
    }
    decoder()[1].save(found["decoder_words"] / "model.onnx")
    encoder()[1].save(found["word_piece"] / "model.onnx")
    return found


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("byte_level", ["the", "cats", "sat", ",", "naïve", "日", "eating", "!"]),
        ("word_piece", ["[CLS]", "the", "cats", "sat", ",", "[UNK]", "[UNK]", "eating", "[UNK]", "[SEP]"]),
    ],
)
def test_tokens_join_to_the_words_of_the_text(folders, kind, words):
    tokenizer = open_tokenizer(folders[kind])
    pieces = tokenizer.pieces(tokenizer.encode("the cats sat, naïve 日 eating!").ids)
    found = words_of(pieces)
    assert [word for word, _ in found] == words
    assert sum(count for _, count in found) == len(pieces)


def test_a_text_of_pieces_of_words_is_read_without_marks(folders):
    tokenizer = open_tokenizer(folders["metaspace"])
    pieces = tokenizer.pieces(tokenizer.encode("the cat sat").ids)
    assert [word for word, _ in words_of(pieces)] == ["the", "cat", "sat", "</s>"]
    assert [piece.special for piece in pieces] == [*[False] * (len(pieces) - 1), True]


def test_ids_masks_types_and_special_tokens_are_those_of_the_tokenizer(folders):
    texts = ox.load_texts(["the cats", "a dog is not good ."], folders["word_piece"])
    ids = [[2, 5, 6, 13, 3, 0, 0, 0], [2, 10, 17, 19, 18, 20, 15, 3]]
    mask = [[1] * 5 + [0] * 3, [1] * 8]
    assert texts["input_ids"].tolist() == ids and texts["attention_mask"].tolist() == mask
    assert texts["token_type_ids"].tolist() == np.zeros((2, 8)).tolist()
    assert texts.tokens[0] == ["[CLS]", "the", "cat", "##s", "[SEP]"]
    start = texts.baseline()
    assert start["input_ids"].tolist() == [[2, 0, 0, 0, 3, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0, 3]]
    assert texts.baseline("[MASK]")["input_ids"][0].tolist() == [2, 4, 4, 4, 3, 0, 0, 0]
    ig = ox.integrated_gradients(
        ox.load(folders["word_piece"]), texts, 0, baseline_inputs=start, tolerance=0.01
    )
    scores = ig.token_scores()
    # Neither special tokens nor padding change along the path.
    assert not scores[0, [0, 4, 5, 6, 7]].any() and not scores[1, [0, 7]].any()
    first = ig.texts(texts)[0]
    assert list(first.special) == [True, False, False, False, True]
    joined = first.by_word()
    assert list(joined.tokens) == ["[CLS]", "the", "cats", "[SEP]"]
    np.testing.assert_allclose(joined.scores[2], scores[0, 2] + scores[0, 3])


def test_long_texts_are_cut_and_said_so(folders):
    model = ox.load(folders["decoder_words"])
    with pytest.warns(Warning, match="text 1 has 20 tokens, and the model takes 16: the last 4 are left out"):
        texts = ox.load_texts(["the cat", "the" + " cat" * 19], model)
    assert texts["input_ids"].shape == (2, 16) and texts.left_out == (0, 4)
    with pytest.warns(Warning, match="takes 5"):
        short = ox.load_texts("the cats sat on the mat", folders["word_piece"], max_length=5)
    # What ends a text stays at its end.
    assert short.tokens == [["[CLS]", "the", "cat", "##s", "[SEP]"]]


def test_a_file_has_a_text_in_each_line(folders, tmp_path):
    path = tmp_path / "reviews.txt"
    path.write_text("\ufeffthe cat\n\n  a dog  \r\n", encoding="utf-8")
    texts = ox.load_texts(path, folders["decoder_words"])
    assert texts.texts == ("the cat", "a dog") and texts["attention_mask"].tolist() == [[1, 1], [1, 1]]


def test_what_is_no_text_or_tokenizer_is_refused(folders, tmp_path):
    model = decoder()[1]
    known = folders["decoder_words"]
    for given, options, reason in (
        ("", {"tokenizer": known}, "has no token"),
        ([], {"tokenizer": known}, "expected texts"),
        ([3], {"tokenizer": known}, "expected texts"),
        ("the", {}, "give tokenizer="),
        ("the", {"tokenizer": tmp_path}, "no such file"),
        ("\ud800", {"tokenizer": known}, "in Unicode"),
        (tmp_path / "none.txt", {"tokenizer": known}, "No such file"),
    ):
        with pytest.raises(ox.AnalysisError, match=reason):
            ox.load_texts(given, model, **options)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Other"}}), encoding="utf-8")
    with pytest.raises(ox.AnalysisError, match="no tokenizer"):
        ox.load_texts("the", model, tokenizer=tmp_path)


def test_without_the_package_the_extra_is_named(folders, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"onnxplain\[text\]"):
        ox.load_texts("the", decoder()[1], tokenizer=folders["decoder_words"])


def test_special_tokens_have_no_colour_and_set_no_scale():
    from analyzer.figures import limit_of
    from analyzer.figures.tokens import chips

    text = ScoredTokens(["[CLS]", "good"], np.array([5.0, 1.0]), "", 6.0, [True, False])
    assert limit_of([text]) == 1.0
    mark, good = chips(text, 1.0)
    assert mark.colour[3] == 0 and good.colour[3] > 0
    assert text.sum_text(1.0) == "the tokens sum to +6.00 of +6.00, special tokens +5.00 of it"
    with pytest.raises(ValueError, match="words of the tokens are not known"):
        text.by_word()
