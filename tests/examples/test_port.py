"""The port is proved, and every planted bug fails the proof and is pinned to its layer."""

from __future__ import annotations

import functools
import importlib

import numpy as np
import pytest
import torch

from converters import convert

script = importlib.import_module("03_port")
# The layer of the PyTorch network that each bug is in. BatchNorm is folded into the convolution before it.
LAYERS = {"epsilon": "conv1", "padding": "conv2", "gates": "lstm", "bias": "head"}


@functools.cache
def original():
    source = script.trained(8)
    images, _ = script.drawings(3, np.random.default_rng(1))
    return source, images, convert(source, torch.from_numpy(images[:1]))


def test_the_port_is_one_function():
    source, images, model = original()
    report = script.prove(model, source, "", images)
    report.raise_for_disagreement()
    assert not report.near and report.unmatched == {"pytorch": (), "keras": ()}


@pytest.mark.parametrize("bug", script.BUGS)
def test_a_bug_is_pinned_to_its_layer(bug):
    source, images, model = original()
    report = script.prove(model, source, bug, images)
    (pair,) = report.pairs
    assert not report.passed
    assert pair.first_divergence["layer"] == LAYERS[bug]
    node = next(row["node"] for row in pair.rows if row["layer"] == LAYERS[bug])
    assert f"{node!r}: " in pair.origin or node in pair.suspects, pair.origin


def test_the_script_prints_the_report_and_fails_on_a_bug(tmp_path, capsys):
    assert (
        script.main(
            ["--bug", "bias", "--steps", "2", "-o", str(tmp_path), "--picture", str(tmp_path / "all.png")]
        )
        == 1
    )
    printed = capsys.readouterr().out
    assert "Planted: the head has no bias." in printed and "'head'" in printed
    assert (tmp_path / "all.png").stat().st_size > 10_000
    assert "<html" in (tmp_path / "port.html").read_text()
