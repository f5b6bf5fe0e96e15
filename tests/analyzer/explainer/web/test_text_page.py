"""The page of a text model in a real browser, compared with Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from analyzer.explainer.export import export_explainer
from analyzer.explainer.web import write_site
from tests.analyzer.explainer.web.chrome import Chrome
from tests.analyzer.explainer.web.conftest import BERT, CASES, TEXTS, serving
from tests.analyzer.explainer.web.driving import (
    after,
    assert_equal,
    opened,
    python,
)
from tests.analyzer.explainer.web.networks import LENGTH, text_classifier


def test_the_share_of_a_token_is_the_sum_over_its_vector(chrome: Chrome, tmp_path: Path) -> None:
    tokenizer, text = BERT["tokenizer"], "a"
    onnx.save(text_classifier(1 + max(tokenizer["model"]["vocab"].values())), tmp_path / "net.onnx")
    path = tmp_path / "words.onnx"
    settings: dict[str, Any] = {"steps": 8, "wrt": "embedding", "tokenizer": json.dumps(tokenizer)}
    export_explainer(str(tmp_path / "net.onnx"), path, "integrated-gradients", **settings)
    write_site(path, tmp_path / "site", samples=[text])
    with serving(tmp_path / "site") as address:
        page = opened(chrome, address)
        (shares,) = page.run("window.found.maps").values()
        ids = next(case["ids"] for case in BERT["cases"] if case["text"] == text)
        row = np.array([ids + [0] * (LENGTH - len(ids))])
        expected = python(path, {"ids": row})
        np.testing.assert_allclose(
            shares, expected["attribution"][0].sum(axis=1)[: len(ids)], rtol=1e-3, atol=1e-5
        )
        assert page.text("#sentence").startswith("Red words raise")


def test_a_reader_explains_texts(chrome: Chrome, text_file: Path, text_site: Path) -> None:
    def truth(text: str, target: int = -1) -> dict[str, np.ndarray]:
        ids = next(case["ids"] for case in BERT["cases"] if case["text"] == text)
        row = np.array([ids + [0] * (LENGTH - len(ids))])
        return {**python(text_file, {"ids": row, "target": np.array([target])}), "count": np.array(len(ids))}

    with serving(text_site) as address:
        page = opened(chrome, address)
        assert page.run("document.querySelector('#words').value") == TEXTS[0]
        text = "I'm you're they'll WE'VE don't can’t"
        # Typed with the keyboard and sent with it.
        page.run("(w => { w.focus(); w.select() })(document.querySelector('#words'))")
        page.type("a")
        page.press("Tab")
        found = after(page, page.press, "Enter")
        assert_equal(found, truth("a"))
        assert [one["text"] for one in found["tokens"]] == ["[CLS]", "a", "[SEP]"]
        assert page.run("document.querySelectorAll('#tokens > span').length") == truth("a")["count"]
        found = after(page, page.run, "document.querySelectorAll('#top input')[1].click()")
        assert_equal(found, truth("a", found["target"]))

        # Longer than the model takes.
        page.run(
            f"(w => {{ w.value = {json.dumps(text)}; w.form.requestSubmit() }})(document.querySelector('#words'))"
        )
        page.until("!document.querySelector('#problem').hidden")
        assert f"the model takes {LENGTH}" in page.text("#problem")
        page.run("document.querySelector('#views input[value=signed]').click()")
        found = after(page, page.click, ".sample:nth-child(2)")
        assert page.text("#tokens small")[0] in "+−0" and page.text("#sentence").startswith("Red words raise")
        colours = page.run(
            "[...document.querySelectorAll('#tokens b')].map(one => getComputedStyle(one).backgroundColor)"
        )
        values = found["maps"]["complete_map"]
        strongest = int(np.argmax(np.abs(values)))
        alphas = [float(one.rsplit(",", 1)[-1].strip(" )")) if "rgba" in one else 1.0 for one in colours]
        assert strongest == int(np.argmax(alphas))
        assert page.said == [] and all(url.startswith(address) for url in page.requested)


def test_the_tokenizer_of_the_page_gives_the_ids_of_the_python_package(
    chrome: Chrome, text_site: Path
) -> None:
    with serving(text_site) as address:
        page = opened(chrome, address)
        for one in CASES:
            found = page.run(
                f"""Promise.all([import("./vendor/tokenizers.min.mjs"), import("./precompiled.js")]).then(
                ([{{ Tokenizer }}, {{ withTables }}]) => {{
                  const stored = {json.dumps(one["tokenizer"])};
                  const tokenizer = new Tokenizer(stored, {{}});
                  withTables(tokenizer, stored);
                  const texts = {json.dumps([case["text"] for case in one["cases"]])};
                  return texts.map(text => Array.from(tokenizer.encode(text).ids, Number));
                }})"""
            )
            assert found == [case["ids"] for case in one["cases"]], one["name"]
