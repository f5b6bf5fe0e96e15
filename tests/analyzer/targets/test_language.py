"""Targets of language models: the next token, the difference of two, and the likelihood of a sequence."""

import itertools

import numpy as np
import pytest

import onnxplain as ox
from onnxplain import targets
from tests.analyzer.languages import batch, decoder, log_softmax, logits_of

LAST, ROWS = [6, 4, 6], [0, 1, 2]


def explained(target):
    return ox.gradient(decoder()[1], batch(), target).output


@pytest.fixture(scope="module")
def logits():
    return logits_of(decoder()[0], batch())


def test_the_next_token_follows_the_last_one_that_is_no_padding(logits):
    model = decoder()[1]
    logs = log_softmax(logits)
    np.testing.assert_allclose(
        explained(targets.next_token(model, batch())), logs[ROWS, LAST].max(-1), atol=1e-5
    )
    raw = targets.next_token(model, batch(), [1, 2, 3], position=-2, log_probability=False)
    np.testing.assert_allclose(explained(raw), logits[ROWS, [5, 3, 5], [1, 2, 3]], atol=1e-5)
    named = targets.next_token(model, batch(), 4, position=[0, 1, 2])
    np.testing.assert_allclose(explained(named), logs[ROWS, [0, 1, 2], 4], atol=1e-5)


def test_two_tokens_differ_by_their_logits(logits):
    found = explained(targets.token_difference(decoder()[1], batch(), 5, [1, 2, 3]))
    np.testing.assert_allclose(found, logits[ROWS, LAST, 5] - logits[ROWS, LAST, [1, 2, 3]], atol=1e-5)


@pytest.mark.parametrize("start", [1, 3])
def test_the_likelihood_of_a_sequence_leaves_padding_out(logits, start):
    inputs, logs = batch(), log_softmax(logits)
    wanted = []
    for n in ROWS:
        kept = np.flatnonzero(inputs["attention_mask"][n])
        pairs = list(itertools.pairwise(kept))[start - 1 :]
        wanted.append([logs[n, before, inputs["input_ids"][n, token]] for before, token in pairs])
    mean = targets.sequence_log_probability(decoder()[1], inputs, start=start)
    total = targets.sequence_log_probability(decoder()[1], inputs, start=start, mean=False)
    np.testing.assert_allclose(explained(mean), [np.mean(one) for one in wanted], atol=1e-5)
    np.testing.assert_allclose(explained(total), [np.sum(one) for one in wanted], atol=1e-5)


def test_padding_and_tokens_that_do_not_exist_are_refused():
    model = decoder()[1]
    for position in (5, -6, [0, 6, 2]):
        with pytest.raises(ox.AnalysisError, match="sample 1 has 5 tokens, in the columns 0 to 4"):
            targets.next_token(model, batch(), position=position)
    with pytest.raises(ox.AnalysisError, match="an id from 0 to 22"):
        targets.token_difference(model, batch(), 5, 23)
    with pytest.raises(ox.AnalysisError, match="none of them counts"):
        targets.sequence_log_probability(model, batch(), start=5)
