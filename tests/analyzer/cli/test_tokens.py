"""A text model on the command line: every token with its score, named from a vocabulary."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

WORDS = ("[pad]", "good", "bad", "not\u2028quite", "<b>")
TABLE = np.array([[0.5, 0.0], [1.0, 2.0], [-1.0, -3.0], [0.25, 0.5], [2.0, 0.0]], np.float32)
IDS = np.array([[1, 2, 4, 0, 0, 0], [2, 2, 3, 4, 1, 1]])
METHOD = ("--method", "integrated-gradients", "--wrt", "embedding")


@pytest.fixture(scope="module")
def text_files(files):
    """A linear text model: the sum over all vectors, by weights, in two classes."""
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["vectors"], name="lookup"),
        helper.make_node("ReduceSum", ["vectors", "one"], ["pooled"], name="pool", keepdims=0),
        helper.make_node("MatMul", ["pooled", "weights"], ["logits"], name="head"),
    ]
    weights = {"table": TABLE, "one": np.array([1]), "weights": np.array([[1, 0], [1, 0]], np.float32)}
    graph = helper.make_graph(
        nodes,
        "text",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 6])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        files / "words.onnx",
    )
    np.save(files / "ids.npy", IDS)
    np.save(files / "pad.npy", np.zeros((1, 6), np.int64))
    (files / "words.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8", newline="\n")
    (files / "short.txt").write_text("a\nb\n", encoding="utf-8")
    (files / "latin.txt").write_bytes("caf\xe9\n".encode("latin-1"))
    return files


def scores(json_of, *options):
    status, document = json_of("analyze", "words.onnx", "ids.npy", *METHOD, "--target", "0", *options)
    assert status == 0
    return [sample["tokens"][0] for sample in document["samples"]]


def test_scores_of_a_linear_model_are_the_sums_of_its_vectors(text_files, json_of):
    first, second = scores(json_of, "--tokens", "words.txt")
    # From zero vectors: row sums of the table; what ends the row three times is its padding.
    assert first["tokens"] == ["good", "bad", "<b>", "(3 more)"]
    np.testing.assert_allclose(first["scores"], [3, -4, 2, 1.5], rtol=1e-6)
    assert second["tokens"] == ["bad", "bad", "not\u2028quite", "<b>", "good", "good"]
    np.testing.assert_allclose(second["scores"], [-4, -4, 0.75, 2, 3, 3], rtol=1e-6)


def test_from_padding_tokens_padding_has_no_part(text_files, json_of):
    first, _ = scores(json_of, "--tokens", "words.txt", "--baseline-inputs", "pad.npy")
    assert first["tokens"] == ["good", "bad", "<b>"]
    np.testing.assert_allclose(first["scores"], [2.5, -4.5, 1.5], rtol=1e-6)


def test_tokens_are_attributed_where_wrt_is_omitted(text_files, json_of):
    options = ("--method", "integrated-gradients", "--target", "0", "--tokens", "words.txt")
    status, document = json_of("analyze", "words.onnx", "ids.npy", *options)
    assert status == 0
    np.testing.assert_allclose(document["samples"][0]["tokens"][0]["scores"], [3, -4, 2, 1.5], rtol=1e-6)


def test_without_a_vocabulary_ids_are_shown(text_files, json_of):
    assert scores(json_of)[1]["tokens"] == ["2", "2", "3", "4", "1", "1"]


def test_terminal_report_and_pictures_show_the_tokens(text_files, command, tmp_path):
    out = tmp_path / "out"
    status, told, _ = command("analyze", "words.onnx", "ids.npy", *METHOD, "--tokens", "words.txt", "-o", out)
    assert status == 0
    assert "good" in told and "−4.00" in told and "the tokens sum to +2.50 of +2.50" in told
    page = (out / "report.html").read_text(encoding="utf-8")
    assert ">good</b>" in page and "&lt;b&gt;</b>" in page and "speaks for" in page
    assert {"ids-0-tokens.png", "ids-1-tokens.png"} <= {path.name for path in out.iterdir()}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((*METHOD, "--tokens", "short.txt"), "2 lines have no token of id 2"),
        ((*METHOD, "--tokens", "latin.txt"), "latin.txt: no UTF-8 text"),
        ((*METHOD, "--tokens", "none.txt"), "none.txt: No such file"),
        ((*METHOD[:2], "--wrt", "pooled", "--tokens", "words.txt"), "nothing is attributed to any"),
        ((*METHOD, "--baseline-inputs", "none.npy"), "none.npy"),
    ],
)
def test_what_does_not_fit_is_one_line(text_files, command, options, reason):
    status, _, told = command("analyze", "words.onnx", "ids.npy", *options)
    assert status == 2
    assert reason in told and len(told.strip().splitlines()) == 1
