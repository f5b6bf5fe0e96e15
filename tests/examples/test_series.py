"""The planted beat is found: most of the attribution lies where it is, and autograd puts it there as well."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from PIL import Image

script = importlib.import_module("06_series")


@pytest.fixture(scope="module")
def net():
    module, accuracy = script.train_beats()
    assert accuracy > 0.97
    return module


@pytest.fixture(scope="module")
def planted():
    drawn = script.draw_signals(40, seed=11)
    return drawn.values[drawn.premature], drawn.windows[drawn.premature]


@pytest.fixture(scope="module")
def found(net, planted):
    return script.explain(net, planted[0])


def test_most_of_the_attribution_lies_in_the_planted_beat(found, planted):
    shares = script.share_within(found, planted[1])
    # The windows take up less than a sixth of the signals: by chance they would have as much.
    assert planted[1].mean() < 1 / 6
    assert (shares > 0.5).mean() >= 0.95
    assert shares.mean() > 0.7
    strongest = found.attributions[:, 0].argmax(axis=1)
    assert planted[1][np.arange(len(strongest)), strongest].mean() >= 0.95


def test_attributions_are_those_of_autograd_in_double_precision(net, found, planted):
    exact = script.BeatNet().double()
    exact.load_state_dict(net.state_dict())
    signals, total = torch.from_numpy(planted[0]).double(), 0.0
    for alpha in (np.arange(256) + 0.5) / 256:
        point = (alpha * signals).requires_grad_()
        total = total + torch.autograd.grad(exact(point).sum(), point)[0] / 256
    expected = (signals * total).numpy()
    assert found.converged.all()
    distance = np.linalg.norm(found.attributions - expected, axis=(1, 2)) / np.linalg.norm(
        expected, axis=(1, 2)
    )
    assert distance.max() <= 5 * script.TOLERANCE


def test_the_logit_falls_when_the_strongest_steps_are_levelled(net, found, planted):
    """As many steps as the beat has, where its attribution is largest, against as many elsewhere."""
    signals, size = planted[0], np.abs(found.attributions[:, 0])
    before = net(torch.from_numpy(signals)).numpy()[:, 0]
    falls = {}
    for name, order in (("strongest", np.argsort(-size, axis=1)), ("weakest", np.argsort(size, axis=1))):
        levelled = signals.copy()
        np.put_along_axis(levelled[:, 0], order[:, : 2 * script.REACH], 0.0, axis=1)
        falls[name] = before - net(torch.from_numpy(levelled)).numpy()[:, 0]
    assert falls["strongest"].mean() > 5 * np.abs(falls["weakest"]).mean()


def test_the_example_draws_the_signals(net, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "train_beats", lambda: (net, 1.0))
    assert script.main(["-o", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("where the beat was planted") == script.SHOWN
    with Image.open(tmp_path / "beats.png") as picture:
        assert min(picture.size) > 500
