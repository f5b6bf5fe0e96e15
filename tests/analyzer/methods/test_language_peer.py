"""Attributions of tokens equal those of Captum's LayerIntegratedGradients at equal steps."""

import numpy as np
import pytest
import torch
from captum.attr import LayerIntegratedGradients

import onnxplain as ox
from onnxplain import targets
from tests.analyzer.languages import batch, decoder, encoder

STEPS = 20


def by_captum(net, layer, score, inputs, baseline):
    """Scores (N, T) of the tokens."""
    ids, *others = (torch.tensor(array) for array in inputs.values())
    found = LayerIntegratedGradients(score, layer).attribute(
        ids,
        baselines=torch.tensor(baseline),
        additional_forward_args=tuple(others),
        n_steps=STEPS,
        method="gausslegendre",
    )
    return found.sum(-1).detach().numpy()


@pytest.mark.parametrize("log_probability", [False, True])
def test_a_decoder_like_gpt2_is_explained_as_by_captum(log_probability):
    net, model = decoder()
    inputs, last, tokens = batch(), torch.tensor([6, 4, 6]), torch.tensor([3, 9, 20])

    def score(ids, mask):
        # Captum stacks the points of the paths.
        logits, repeats = net(ids, mask), len(ids) // 3
        logits = torch.log_softmax(logits, -1) if log_probability else logits
        return logits[torch.arange(len(ids)), last.repeat(repeats), tokens.repeat(repeats)]

    baseline = np.zeros_like(inputs["input_ids"])
    target = targets.next_token(model, inputs, tokens.numpy(), log_probability=log_probability)
    found = ox.integrated_gradients(
        model, inputs, target, baseline_inputs={**inputs, "input_ids": baseline}, steps=STEPS
    )
    expected = by_captum(net, net.wte, score, inputs, baseline)
    np.testing.assert_allclose(found.token_scores(), expected, atol=1e-4)
    assert np.abs(expected).max() > 0.1


def test_an_encoder_like_bert_is_explained_as_by_captum():
    net, model = encoder()
    inputs = {**batch(), "token_type_ids": np.zeros_like(batch()["input_ids"])}
    baseline = np.zeros_like(inputs["input_ids"])

    def score(ids, mask, kinds):
        return net(ids, mask, kinds)[:, 1]

    found = ox.integrated_gradients(
        model, inputs, 1, baseline_inputs={**inputs, "input_ids": baseline}, steps=STEPS
    )
    expected = by_captum(net, net.word, score, inputs, baseline)
    np.testing.assert_allclose(found.token_scores(), expected, atol=1e-4)
    assert np.abs(expected).max() > 0.01
