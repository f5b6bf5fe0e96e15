"""Every generated token is explained as if it were explained alone, after the tokens before it."""

import numpy as np
import pytest
import torch

import onnxplain as ox
from onnxplain import targets
from tests.analyzer import tokenizers_of
from tests.analyzer.languages import decoder, encoder, log_softmax, logits_of

PROMPT = np.array([1, 2, 3, 4, 5])


def generated_by_torch(net, count):
    """Greedy generation by PyTorch, without padding."""
    ids = torch.tensor(PROMPT)[None]
    for _ in range(count):
        with torch.no_grad():
            following = net(ids, torch.ones_like(ids))[0, -1].argmax()
        ids = torch.cat([ids, following[None, None]], dim=1)
    return ids[0].numpy()


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("method", "settings"), [("integrated-gradients", {"steps": 5}), ("input-x-gradient", {})]
)
def test_rows_are_those_of_each_prefix(gated, method, settings):
    net, model = decoder(gated=gated)
    found = ox.attribute_generation(model, PROMPT, max_new_tokens=6, method=method, **settings)
    ids = generated_by_torch(net, 6)
    np.testing.assert_array_equal(found.target, ids[5:])
    np.testing.assert_array_equal(found.ids, ids[:-1])
    logs = log_softmax(logits_of(net, {"input_ids": ids[None], "attention_mask": np.ones((1, 11), int)}))
    np.testing.assert_allclose(found.output, logs[0, range(4, 10), ids[5:]], atol=1e-5)
    np.testing.assert_allclose(found.probabilities, np.exp(found.output), rtol=1e-4)
    function = ox.integrated_gradients if settings else ox.input_x_gradient
    for row in range(6):
        prefix = {"input_ids": ids[None, : 5 + row], "attention_mask": np.ones((1, 5 + row), np.int64)}
        alone = function(model, prefix, targets.next_token(model, prefix, int(ids[5 + row])), **settings)
        vectors = alone.by_tensor(alone.attributions)["embedding"]
        np.testing.assert_allclose(found.scores[row, : 5 + row], vectors[0].sum(-1), atol=1e-5)
        assert not found.scores[row, 5 + row :].any() and found.seen[row].sum() == 5 + row
        for name in ("output", "total"):
            np.testing.assert_allclose(
                getattr(found.completeness, name)[row], getattr(alone.completeness, name)[0], atol=1e-4
            )


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A result with a tokenizer, whose baseline is a token."""
    folder = tokenizers_of.saved(
        tokenizers_of.decoder_words(), tmp_path_factory.mktemp("words"), n_positions=16, eos_token_id=0
    )
    return ox.attribute_generation(
        decoder()[1],
        "the cats sat",
        generated=" on the mat eating",
        tokenizer=folder,
        baseline_token="?",
        steps=40,
    )


def test_a_given_continuation_is_explained(result):
    assert result.tokens == ("the", "?", "sat", "on", "the", "mat")
    assert result.generated == (" on", " the", " mat", "?")
    assert result.prompt == 3 and result.target.tolist() == [4, 5, 6, 22]
    # Where the token is that of the baseline, nothing changes along the path.
    assert not result.scores[:, 1].any() and result.scores[:, 0].all()
    assert result.completeness.error.max() < 0.05


def test_words_are_sums_of_their_tokens(result):
    words = result.by_word()
    assert words.tokens == result.tokens and words.prompt == 3
    np.testing.assert_allclose(words.scores, result.scores)
    whole = result.by_word(rows=True)
    np.testing.assert_allclose(whole.scores.sum(), result.scores.sum())
    np.testing.assert_allclose(whole.output.sum(), result.output.sum())
    with pytest.raises(ox.AnalysisError, match="words of the tokens are not known"):
        ox.attribute_generation(decoder()[1], PROMPT, max_new_tokens=1, method="gradient").by_word()


def test_it_is_kept_drawn_and_written(result, tmp_path):
    result.save(tmp_path / "result.npz")
    again = ox.Attribution.load(tmp_path / "result.npz")
    assert isinstance(again, ox.GenerationAttribution) and again.generated == result.generated
    np.testing.assert_array_equal(again.scores, result.scores)
    part = again[1:3]
    assert len(part) == 2 and part.generated == (" the", " mat") and part.scores.shape == (2, 6)
    page = result.to_html(tmp_path / "page.html")
    assert page == (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<script" not in page and page.count('<td class="later">') == 6 - 3 + 6 - 4 + 6 - 5
    figure = result.plot(title="generated")
    (axes,) = figure.axes
    told = [text.get_text() for text in axes.texts]
    assert "generated" in told and told.count("mat") == 2
    assert len(axes.patches) == 3 + 4 + 5 + 6
    assert "Integrated Gradients of generated tokens" in repr(result)
    assert len(result.texts()) == 4 and result.to_json()


def test_generation_ends_with_the_text(tmp_path):
    net, model = decoder()
    following = int(generated_by_torch(net, 1)[-1])
    folder = tokenizers_of.saved(tokenizers_of.decoder_words(), tmp_path, eos_token_id=[following, 50])
    found = ox.attribute_generation(model, PROMPT, max_new_tokens=5, tokenizer=folder, method="gradient")
    assert found.target.tolist() == [following] and found.completeness is None and not found.signed


def test_what_cannot_be_generated_or_explained_is_refused(tmp_path):
    model = decoder()[1]
    folder = tokenizers_of.saved(tokenizers_of.decoder_words(), tmp_path, n_positions=6)
    for prompt, options, reason in (
        ("the cat", {}, "a text needs a tokenizer"),
        ([1, 2, 33], {}, "outside the vocabulary of 23"),
        ([[1, 2], [3, 4]], {}, "one sequence"),
        (PROMPT, {"max_new_tokens": 0}, "at least 1"),
        (PROMPT, {"max_new_tokens": 3, "tokenizer": folder}, "at most 6 tokens"),
        (PROMPT, {"method": "smooth-grad"}, "vectors of tokens"),
        (PROMPT, {"step": 3}, "no option of integrated-gradients"),
        (PROMPT, {"method": "gradient", "baseline_token": 3, "max_new_tokens": 1}, "no baseline"),
        # The network has vectors for 16 positions.
        (PROMPT, {"max_new_tokens": 13}, "at most 16 tokens"),
    ):
        with pytest.raises(ox.AnalysisError, match=reason):
            ox.attribute_generation(model, prompt, **options)
    with pytest.raises(ox.AnalysisError, match="expected logits"):
        ox.attribute_generation(encoder()[1], PROMPT, max_new_tokens=1)


class LooksAhead(torch.nn.Module):
    """An encoder with a number for each token of the vocabulary."""

    def __init__(self):
        super().__init__()
        self.table, self.head = torch.nn.Embedding(7, 4), torch.nn.Linear(4, 7)

    def forward(self, input_ids):
        x = self.table(input_ids)
        return self.head(x + x.mean(dim=1, keepdim=True))


def test_a_model_that_looks_ahead_is_no_decoder():
    ids = np.array([[1, 2, 3]])
    model = ox.convert(LooksAhead(), ids, free_axes={"input_ids": {1: "time"}})
    with pytest.raises(ox.AnalysisError, match="depend on later ones"):
        ox.attribute_generation(model, ids, max_new_tokens=2)
