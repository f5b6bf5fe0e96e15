"""What --target says: masks, positions, weights, other outputs, sums and several classes, as the API computes them."""

from __future__ import annotations

import html

import numpy as np
import onnx
import pytest
from onnx import parser

from analyzer import Target, differentiate, full_grad, integrated_gradients
from analyzer.cli.targets import parse_target
from analyzer.cli.terminal import UserError
from analyzer.figures.images import preprocess, read_image
from analyzer.figures.numbers import format_value
from converters import Preprocessing

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
    "h=1@all": Target("h", index=1, axis=1),
    "last=2@all@last": Target("last", index=2, axis=-1),
    "last=-1@all@last": Target("last", index=-1, axis=-1),
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
        ("nothing=1", "no output 'nothing'. Fix: choose from maps, steps, last"),
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


# Logits of five classes and a box of two numbers: x times constants, so that every sum is known.
HEADS = """<ir_version: 10, opset_import: ["": 23]>
  g (float[n,3] x) => (float[n,5] logits, float[n,2] box)
  <float[3,5] w = {1, 2, 3, 4, 5, 0, 1, 0, -1, 0, 2, 0, 1, 0, -2}, float[3,2] v = {1, 0, 0, 1, 2, 2}>
  { logits = MatMul(x, w) box = MatMul(x, v) }"""
W = np.array([[1, 2, 3, 4, 5], [0, 1, 0, -1, 0], [2, 0, 1, 0, -2]])
V = np.array([[1, 0], [0, 1], [2, 2]])
ROWS = np.array([[1, 2, 3], [2, -1, 0]], np.float32)


@pytest.fixture
def heads(command, tmp_path, monkeypatch):
    onnx.save(parser.parse_model(HEADS), tmp_path / "heads.onnx")
    np.save(tmp_path / "x.npy", ROWS)
    np.save(tmp_path / "box+1.npy", np.float32([1, -1]))
    np.savez(tmp_path / "both.npz", logits=np.float32([0, 0, 1, 0, 0]), box=np.float32([[2, 0], [0, 2]]))
    np.savez(tmp_path / "strange.npz", other=np.float32([1]))
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 broken")
    monkeypatch.chdir(tmp_path)
    return tmp_path


Y, Z = ROWS @ W, ROWS @ V


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("logits=3+box=0:", Y[:, 3] + Z[:, 0]),
        ("3 + 0.5*box=0: - 2*box=1:", Y[:, 3] + 0.5 * Z[:, 0] - 2 * Z[:, 1]),
        ("3,4+-1*0", [Y[0, 3] - Y[0, 0], Y[1, 4] - Y[1, 0]]),
        ("logits= - 1", Y.max(axis=1) - Y[:, 1]),
        ("-2*1", -2 * Y[:, 1]),
        ("box=box+1.npy", Z[:, 0] - Z[:, 1]),
        ("both.npz", Y[:, 2] + 2 * Z[[0, 1], [0, 1]]),
        ("both.npz + -1:", Y[:, 2] + 2 * Z[[0, 1], [0, 1]] + Y[:, 4]),
    ],
)
def test_a_sum_over_outputs_is_explained_by_every_kind_of_method(heads, json_of, text, expected):
    methods = [part for name in ("full-grad", "gradient", "guided-ig") for part in ("--method", name)]
    status, found = json_of("analyze", "heads.onnx", "x.npy", "--target", text, *methods)
    assert status == 0
    for sample, value in zip(found["samples"], expected, strict=True):
        for method in sample["methods"].values():
            np.testing.assert_allclose(method["output"], value, rtol=1e-5, atol=1e-6)


def test_a_sum_is_shown_in_the_user_s_words(heads, command):
    _, shown, _ = command("analyze", "heads.onnx", "x.npy", "--target", "3 - 0.5*box=1:")
    assert shown.count("3 - 0.5*box=1:") == 2


def test_both_checks_take_sums(heads, json_of):
    for command in (
        ("check", "heads.onnx", "--backends", "onnxruntime,torch"),
        ("compare", "heads.onnx", "heads.onnx"),
    ):
        status, found = json_of(*command, "x.npy", "--target", "logits=3 - 0.5*box=1:")
        assert status == 0 and found["passed"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1+", "is before nothing"),
        ("1 - ", "is before nothing"),
        ("2*", "is before nothing"),
        ("1+other=2", "no output 'other'. Fix: choose from logits, box"),
        ("strange.npz", "no output 'other'. Fix: choose from logits, box"),
        ("broken.npz", "not a readable .npz"),
        ("lost.npz", "no such file"),
        ("top2+1", "a sum is of targets that are one scalar of each sample"),
        ("top0", "at least 1, got 0"),
        ("top6", "has 5 classes"),
        ("9+1", "out of range"),
        ("each:", "names no class"),
        ("each:1,9", "out of range"),
        ("each:1,ant", "stores no class names"),
        ("box=each:1,2", "2 is out of range"),
    ],
)
def test_a_sum_that_is_none_is_refused_in_one_line(heads, command, text, message):
    options = ("--method", "integrated-gradients", "--target", text)
    status, out, errors = command("analyze", "heads.onnx", "x.npy", *options)
    assert status == 2 and message in errors and errors.count("\n") == 1 and not out


def test_classes_of_every_sample_are_explained_each_by_itself(heads, json_of):
    options = ("--method", "integrated-gradients", "--steps", "2")
    _, found = json_of("analyze", "heads.onnx", "x.npy", "--target", "each:4,0", *options)
    for sample, row in zip(found["samples"], Y, strict=True):
        records = sample["methods"]["integrated-gradients"]["classes"]
        assert [one["target"] for one in records] == [4, 0]
        np.testing.assert_allclose([one["output"] for one in records], row[[4, 0]], rtol=1e-6)
        # Linear and without biases: the path from zeros adds up to the output itself.
        np.testing.assert_allclose(
            [one["completeness"]["total"] for one in records], row[[4, 0]], rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("model", ["plain.onnx", "stored.onnx"])
def test_the_highest_classes_are_explained_each_by_itself(files, json_of, tmp_path, model):
    """As the API does; a picture, a record and a row of the arrays for each, named by their classes."""
    given = ("--target", "top2", "--method", "integrated-gradients", "--method", "conductance", "--wrt", "r")
    options = ("--rule", "trapezoid", "--steps", "7", "-o", tmp_path / "out")
    x = np.load(files / "batch.npy")
    at = integrated_gradients(str(files / model), x, Target(top=2), wrt="r", rule="trapezoid", steps=7)
    status, found = json_of("analyze", model, "batch.npy", *given, *options)
    assert status == 0
    names = ["ant", "tabby, tabby cat", "<b>owl</b>", "[red]eel", "dog"] if model == "stored.onnx" else None
    for index, sample in enumerate(found["samples"]):
        records = sample["methods"]["integrated-gradients"]["classes"]
        assert [one["target"] for one in records] == at.target[index].tolist()
        np.testing.assert_allclose([one["output"] for one in records], at.output[index], rtol=1e-5)
        deltas = [one["completeness"]["delta"] for one in records]
        np.testing.assert_allclose(deltas, at.delta[index], atol=1e-5)
        assert [one["target_name"] for one in records] == [names and names[one] for one in at.target[index]]
        assert len(sample["methods"]["conductance"]["classes"]) == 2
    with np.load(tmp_path / "out" / "arrays.npz") as arrays:
        np.testing.assert_allclose(
            arrays["integrated_gradients/attributions/r"], at.attributions, rtol=1e-4, atol=1e-6
        )
        np.testing.assert_array_equal(arrays["integrated_gradients/target"], at.target)


def test_pictures_and_tables_name_each_class(files, command, tmp_path):
    out = tmp_path / "out"
    options = ("--target", "top2", "--method", "integrated-gradients", "--steps", "5", "-o", out)
    status, shown, _ = command("analyze", "stored.onnx", "photo.png", *options)
    assert status == 0
    stored = Preprocessing((16, 16), (0.5,) * 3, (0.25,) * 3, "NCHW", 20)
    photograph = preprocess(read_image(files / "photo.png"), stored, 3)[None]
    found = integrated_gradients(str(files / "stored.onnx"), photograph, Target(top=2), steps=5)
    slugs = ("0-ant", "1-tabby", "2-b-owl-b", "3-red-eel", "4-dog")
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {f"photo-integrated-gradients-{slugs[one]}.png" for one in found.target[0]}
    words = " ".join(shown.split())
    short = ("ant", "tabby", "<b>owl</b>", "[red]eel", "dog")
    for rank, one in enumerate(found.target[0]):
        assert f"Integrated Gradients: {short[one]}" in words
        delta = format_value(float(found.delta[0, rank]))
        assert f"({one}) {found.output[0, rank]:.3f} {delta}" in words
    page = (out / "report.html").read_text()
    assert all(f"Integrated Gradients: {html.escape(short[one])}" in page for one in found.target[0])


@pytest.mark.parametrize(
    ("arguments", "who"),
    [
        (("analyze", "plain.onnx"), "full-grad"),
        (("analyze", "plain.onnx", "--method", "integrated-gradients", "--method", "grad-cam"), "grad-cam"),
        (("check", "plain.onnx"), "check"),
        (("compare", "plain.onnx", "stored.onnx"), "compare"),
    ],
)
def test_who_explains_one_scalar_names_those_who_take_several_classes(command, arguments, who):
    status, _, errors = command(*arguments, "batch.npy", "--target", "top3")
    assert status == 2 and errors.count("\n") == 1
    assert f"--target top3: {who} explains one scalar of each sample" in errors
    assert "--method integrated-gradients and conductance takes several" in errors


def test_what_is_said_of_several_classes_is_said_once(command):
    options = ("--method", "integrated-gradients", "--max-error", "0.05", "--target", "top3")
    _, shown, _ = command("analyze", "plain.onnx", "batch.npy", *options)
    assert shown.count("the map is within") == 1
    _, shown, _ = command("analyze", "plain.onnx", "batch.npy", *options[:2], *options[4:], "--steps", "1")
    assert shown.count("more steps, or a tolerance") == 1


def test_tables_have_a_picture_of_each_class(heads, command):
    options = ("--method", "integrated-gradients", "--method", "guided-ig", "--steps", "2", "-o", "out")
    assert command("analyze", "heads.onnx", "x.npy", "--target", "1", *options)[0] == 0
    assert (heads / "out" / "x-0-guided-ig.png").is_file()
    options = ("--method", "integrated-gradients", "--steps", "2", "-o", "classes")
    assert command("analyze", "heads.onnx", "x.npy", "--target", "each:4,0", *options)[0] == 0
    names = {path.name for path in (heads / "classes").glob("*.png")}
    assert names == {f"x-{row}-integrated-gradients-class-{one}.png" for row in (0, 1) for one in (4, 0)}
