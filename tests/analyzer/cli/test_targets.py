"""What --target says: masks, positions, weights and other outputs, as the API computes them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from analyzer import Target, differentiate, full_grad
from analyzer.cli.targets import parse_target
from analyzer.cli.terminal import UserError

# A segmentation (N, classes, H, W), a sequence (N, steps, classes), and the former with its channels last.
DENSE = """<ir_version: 10, opset_import: ["": 23]>
  g (float[n,3,2,2] x) => (float[n,3,2,2] maps, float[n,4,3] steps, float[n,2,2,3] last)
  <float[1,3,1,1] b = {1, -2, 3}, int64[3] rows = {-1, 3, 4}>
  { h = Mul(x, x) maps = Add(h, b) last = Transpose<perm = [0, 2, 3, 1]>(maps)
    r = Reshape(h, rows) steps = Transpose<perm = [0, 2, 1]>(r) }"""
X = np.random.default_rng(0).normal(size=(2, 3, 2, 2)).astype(np.float32)
MASK = np.array([[1, 0], [0, 1]], bool)


@pytest.fixture
def folder(command, tmp_path, monkeypatch):
    onnx.save(parser.parse_model(DENSE), tmp_path / "dense.onnx")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "mask.npy", MASK)
    np.save(tmp_path / "masks.npy", np.stack([MASK, ~MASK]))
    np.save(tmp_path / "weights.npy", np.arange(12, dtype=np.float32).reshape(4, 3))
    monkeypatch.chdir(tmp_path)
    return tmp_path


TARGETS = {
    "1@mask.npy": Target(index=1, mask=MASK),
    "2,0@masks.npy": Target(index=np.array([2, 0]), mask=np.stack([MASK, ~MASK])),
    "2@predicted": Target(index=2, mask="predicted"),
    "last=1@mask.npy@last": Target("last", index=1, mask=MASK, axis=-1),
    "last=2@predicted@last": Target("last", index=2, mask="predicted", axis=-1),
    "2:0:1": Target(index=(2, 0, 1)),
    "steps=-1:2": Target("steps", index=(3, 2)),
    "steps=-1:": Target("steps", position=-1),
    "steps=0:,3:": Target("steps", position=np.array([0, 3])),
    "steps=weights.npy": Target("steps", weights=np.arange(12).reshape(4, 3)),
    "steps=": Target("steps"),
    "h=1": Target("h", index=1),
}


@pytest.mark.parametrize("text", TARGETS)
def test_a_target_is_what_the_api_makes_of_it(folder, json_of, text):
    status, found = json_of("analyze", "dense.onnx", "x.npy", "--target", text)
    assert status == 0
    expected = full_grad(differentiate("dense.onnx"), X, TARGETS[text])
    explained = [sample["methods"]["full-grad"]["completeness"]["explained"] for sample in found["samples"]]
    np.testing.assert_allclose(explained, expected.completeness.output, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing=1", "no output 'nothing'; it has maps, steps, last"),
        ("1@lost.npy", "no such file"),
        ("1:2,3:4,0:0", "3 positions for 2 samples"),
        ("1:2,3:", "different numbers of coordinates"),
        ("3@predicted", "out of range"),
    ],
)
def test_a_target_that_is_not_the_model_s_is_refused(folder, text, message):
    graph = differentiate("dense.onnx").graph
    with pytest.raises(UserError, match=message):
        parse_target(text, 2, 3, None, graph)


def test_a_shape_that_does_not_fit_is_refused_in_one_line(folder, command):
    status, _, err = command("analyze", "dense.onnx", "x.npy", "--target", "steps=1@mask.npy")
    assert status == 2 and "does not fit" in err and err.count("\n") == 1
