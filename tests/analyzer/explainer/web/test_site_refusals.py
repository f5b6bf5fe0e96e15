"""What a site is not made of: other files, damaged descriptions, tokenizers with other tokens."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import onnx
import pytest

from analyzer.cli.app import main
from analyzer.errors import ExportError
from analyzer.explainer.web.texts import tokenizer_text
from tests.analyzer.explainer.web.conftest import BERT, CASES
from tests.analyzer.explainer.web.standins import described

ROOT = Path(__file__).parents[4]


def without_description(proto: onnx.ModelProto) -> None:
    del proto.metadata_props[:]


def as_pixels(stored: dict[str, Any]) -> None:
    stored["inputs"][0] |= {"role": "model", "shape": ["batch", 3, 16, 16], "type": "float32"}


def as_table(stored: dict[str, Any]) -> None:
    stored["inputs"][0] |= {"role": "model", "shape": ["batch", 12], "type": "float32"}


def with_noise(stored: dict[str, Any]) -> None:
    stored["inputs"][1] |= {"role": "noise", "default": 0.5}
    stored["inputs"][0] |= {"role": "target"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without_description, "expected an explainer file"),
        (described(lambda one: one.update(format=2)), "format 1"),
        (described(lambda one: one.update(format=None)), "format 1"),
        (described(lambda one: one.update(method=7)), "method to be text"),
        (described(lambda one: one.update(caption="x" * 999)), "a caption of at most"),
        (described(lambda one: one.update(sum_of="everything")), "sum_of output, difference or null"),
        (described(lambda one: one.update(inputs={})), "expected a list"),
        (described(lambda one: one.update(inputs=[])), "a description of every input"),
        (
            described(lambda one: one["inputs"][0].update(name="other")),
            "'other', which is not one of its inputs",
        ),
        (described(lambda one: one["inputs"][0].update(role="password")), "one of the roles"),
        (described(lambda one: one["inputs"][0].update(shape=[-1, 3])), "the shape of 'image'"),
        (described(lambda one: one["inputs"][0].update(shape=[None])), "the shape of 'image'"),
        (described(lambda one: one["inputs"].append(one["inputs"][0])), "inputs once in the description"),
        (
            described(lambda one: one["inputs"][1].update(role="baseline")),
            "with an input of the role 'target'",
        ),
        (described(lambda one: one["outputs"][0].update(explains=False)), "one output that is explained"),
        (described(lambda one: one["outputs"][0].update(shape=["batch", 2, 8, 8])), "expected a classifier"),
        (described(lambda one: one["outputs"][1].update(role="overlay")), "an output with the role 'map'"),
        (described(lambda one: one["outputs"][2].update(role="map")), "one output of the role 'map'"),
        (
            described(lambda one: one["inputs"][1].update(default=float("nan"))),
            "finite numbers in the description",
        ),
        (described(lambda one: one["inputs"][0].update(shape=[2, 9, 9, 3])), "a free batch axis"),
        (described(lambda one: one["inputs"][0].update(shape=["n", 9, 9, 4])), "expected pixels as 'image'"),
        (described(lambda one: one["inputs"][0].update(type="float32")), "expected pixels as 'image'"),
        (described(as_pixels), "Fix: export again with --with-preprocessing"),
        (described(as_table), "a model of images or of token ids"),
    ],
)
def test_a_file_that_is_no_explainer_of_pictures_is_refused(
    photo_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Any, reason: str
) -> None:
    proto = onnx.load(photo_file)
    change(proto)
    onnx.save(proto, tmp_path / "changed.onnx")
    assert main(["web", str(tmp_path / "changed.onnx"), "-o", str(tmp_path / "site")]) == 2
    said = capsys.readouterr().err.strip()
    assert reason in said and "Fix:" in said and "\n" not in said and "internal error" not in said
    assert {path.name for path in tmp_path.iterdir()} == {"changed.onnx"}


def test_other_bad_input_is_one_line_and_nothing_is_written(
    photo_file: Path,
    text_file: Path,
    photos: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "text.onnx").write_text("no model\n" * 30)
    (tmp_path / "short.onnx").write_bytes(photo_file.read_bytes()[:500])
    (tmp_path / "bad.json").write_text("{")
    odd = copy.deepcopy(BERT["tokenizer"])
    odd["pre_tokenizer"] = {"type": "UnicodeScripts"}
    (tmp_path / "odd.json").write_text(json.dumps(odd))
    odd["pre_tokenizer"] = {
        "type": "Split",
        "pattern": {"String": " "},
        "behavior": "MergedWithNext",
        "invert": False,
    }
    (tmp_path / "merged.json").write_text(json.dumps({**odd, "normalizer": None}))
    proto = onnx.load(text_file)
    kept = [one for one in proto.metadata_props if one.key != "onnxplain.tokenizer"]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)
    onnx.save(proto, tmp_path / "bare.onnx")
    before = {path.name for path in tmp_path.iterdir()}
    site = str(tmp_path / "site")
    cases: list[tuple[list[str], str]] = [
        ([str(tmp_path / "none.onnx")], "does not exist"),
        ([str(tmp_path / "text.onnx")], "cannot be decoded"),
        ([str(tmp_path / "short.onnx")], "cannot be decoded"),
        ([str(photo_file), "--sample", str(photos["notes"])], "not a readable image"),
        ([str(photo_file), "--sample", "nothing.png"], "no such file"),
        ([str(photo_file), *(["--sample", str(photos["wide"])] * 25)], "at most 24 samples"),
        ([str(photo_file), "--tokenizer", str(tmp_path / "odd.json")], "reads images"),
        ([str(tmp_path / "bare.onnx")], "--tokenizer FILE"),
        ([str(text_file), "--sample", " "], "a sample text"),
        ([str(text_file), "--tokenizer", str(tmp_path / "no.json")], "No such file"),
        ([str(text_file), "--tokenizer", str(tmp_path / "bad.json")], "the JSON of a tokenizer.json"),
        ([str(text_file), "--tokenizer", str(tmp_path / "odd.json")], "'UnicodeScripts'"),
        ([str(text_file), "--tokenizer", str(tmp_path / "merged.json")], "'MergedWithNext'"),
    ]
    for arguments, reason in cases:
        assert main(["web", *arguments, "-o", site]) == 2, arguments
        said = capsys.readouterr().err.strip()
        assert reason in said and "Fix:" in said and "\n" not in said and "internal error" not in said, said
    assert main(["web", str(photo_file), "-o", str(tmp_path / "no" / "folder")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == before


def test_a_tokenizer_that_gives_other_tokens_in_the_browser_is_refused(
    text_file: Path, tmp_path: Path
) -> None:
    """Each of these gave other ids than the Python package on some text."""
    proto = onnx.load(text_file)
    bert, bpe = (next(one["tokenizer"] for one in CASES if one["name"] == name) for name in ("bert", "llama"))
    split: dict[str, Any] = {
        "type": "Split",
        "pattern": {"Regex": "x"},
        "behavior": "Removed",
        "invert": False,
    }
    added = {"id": 1, "content": "word", "special": False, "single_word": True}
    model = bpe["model"]
    others: list[tuple[dict[str, Any], str]] = [
        ({**bert, "pre_tokenizer": {"type": "Whitespace"}}, "'Whitespace'"),
        ({**bert, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}]}}, "'Digits'"),
        ({**bert, "pre_tokenizer": {"type": "Punctuation", "behavior": "Isolated"}}, "'Punctuation'"),
        ({**bert, "pre_tokenizer": {**split, "pattern": {"String": " "}}}, "a plain text or invert"),
        ({**bert, "pre_tokenizer": {**split, "invert": True}}, "a plain text or invert"),
        ({**bert, "pre_tokenizer": {**split, "behavior": "Contiguous"}}, "'Contiguous'"),
        ({**bert, "added_tokens": [added]}, "a single word"),
        ({**bert, "model": {"type": "WordLevel", "vocab": {}, "unk_token": "a"}}, "'WordLevel'"),
        ({**bpe, "model": {**model, "byte_fallback": False}}, "unknown characters"),
        (
            {**bpe, "model": {**model, "byte_fallback": False, "fuse_unk": False, "unk_token": None}},
            "unknown characters",
        ),
        ({**bpe, "model": {**model, "continuing_subword_prefix": "##"}}, "prefix of subwords"),
        ({**bpe, "model": {**model, "dropout": 0.1}}, "dropout"),
    ]
    for content, reason in others:
        (tmp_path / "tokenizer.json").write_text(json.dumps(content))
        with pytest.raises(ExportError, match=re.escape(reason)) as raised:
            tokenizer_text(proto, tmp_path / "tokenizer.json")
        assert "Fix: give a tokenizer" in str(raised.value)
    for one in CASES:
        (tmp_path / "tokenizer.json").write_text(json.dumps(one["tokenizer"]))
        assert json.loads(tokenizer_text(proto, tmp_path / "tokenizer.json")) == one["tokenizer"]
