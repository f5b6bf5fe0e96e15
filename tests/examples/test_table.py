"""A linear model's attributions are weight times difference; a perceptron's means are those over every patient."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from PIL import Image

from analyzer import Dataset, integrated_gradients
from converters import convert

script = importlib.import_module("07_table")


@pytest.fixture(scope="module")
def patients():
    return script.load_patients()


@pytest.fixture(scope="module")
def nets(patients):
    return script.train(patients)


def test_a_linear_model_s_attributions_have_a_closed_form(nets, patients):
    net = nets["linear"]
    slope = net.model.weight[0].double().numpy() * patients.progression.std() / patients.rows.std(axis=0)
    expected = slope * (patients.new_rows[: script.EXPLAINED] - patients.rows.mean(axis=0, dtype=np.float64))
    by_mean, by_patients = script.explain(net, patients)
    np.testing.assert_allclose(by_mean.attributions, expected, rtol=1e-4, atol=2e-3)
    # Chance is in which of the patients are drawn; five standard errors of thirty numbers.
    assert (np.abs(by_patients.attributions - expected) <= 5 * by_patients.standard_error + 2e-3).all()
    assert (by_patients.standard_error > 0).all()


def test_expected_gradients_estimate_the_mean_over_every_patient(nets, patients):
    net, rows = nets["perceptron"], patients.new_rows[: script.EXPLAINED]
    _, by_patients = script.explain(net, patients)
    every = integrated_gradients(
        convert(net, rows), rows, 0, baseline=Dataset(patients.rows), steps=8, batch_size=256
    )
    assert every.completeness.error.max() < 1e-3
    misses = np.abs(by_patients.attributions - every.attributions) / by_patients.standard_error
    assert misses.max() <= 5
    outputs = net(torch.from_numpy(patients.rows)).double().numpy().mean()
    np.testing.assert_allclose(by_patients.completeness.output, by_patients.output - outputs, rtol=1e-4)


def test_the_example_draws_a_bar_a_feature_with_its_error(nets, patients, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "train", lambda _: nets)
    assert script.main(["-o", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert all(told.count(feature) >= 2 for feature in script.FEATURES)
    for name in nets:
        with Image.open(tmp_path / f"features_{name}.png") as picture:
            assert min(picture.size) > 300
