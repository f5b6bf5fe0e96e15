"""The report of a data set: its numbers against those of the samples, its page, and what is refused."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

import onnxplain as ox
from analyzer.cli.app import main
from analyzer.data.statistics import area_of_half
from analyzer.errors import AnalysisError, InputError


@pytest.fixture(scope="module")
def results(model_file, photos, tmp_path_factory):
    """Nine photographs that are explained, and a file that is none."""
    folder = tmp_path_factory.mktemp("report")
    own = shutil.copytree(photos, folder / "photos")
    (own / "dog" / "broken.png").write_bytes(b"no image")
    return ox.explain_dataset(model_file, own, folder / "out", "input-x-gradient", batch_size=4)


def test_the_numbers_are_those_of_the_samples(results):
    report = ox.report_results(results)
    summary = report.summary
    maps = [results[place].map[0] for place in range(9)]
    np.testing.assert_allclose(summary.areas, [area_of_half(one) for one in maps])
    table = results.table(["label_index", "predicted", "target", "completeness_error"]).to_pandas()
    assert summary.samples == summary.labelled == 9
    assert summary.accuracy == (table.label_index == table.predicted).mean()
    assert summary.completeness.max() == table.completeness_error.max()
    sizes = {one.target: one.samples for one in summary.classes}
    assert sizes == table.target.value_counts().to_dict()
    for one in summary.classes:
        own = [
            maps[place] / np.abs(maps[place]).sum() for place in np.flatnonzero(table.target == one.target)
        ]
        np.testing.assert_allclose(one.mean_map, np.mean(own, axis=0), rtol=1e-5, atol=1e-9)
    assert list(summary.errors.values()) == [1]
    document = report.to_json()
    json.dumps(document, allow_nan=False)
    assert document["most_concentrated"][0] == results.ids[int(summary.areas.argmin())]


def test_masks_say_how_much_of_a_map_lies_inside(results, tmp_path):
    half = np.zeros((16, 16), np.uint8)
    half[:, :8] = 255
    for name in results.ids[:3]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(half).save(tmp_path / name)
    summary = ox.report_results(results, masks=tmp_path).summary
    assert np.isnan(summary.inside[3:]).all() and (summary.uniform[:3] == 0.5).all()
    for place in range(3):
        sizes = np.abs(np.asarray(results[place].map[0], np.float64))
        np.testing.assert_allclose(summary.inside[place], sizes[:, :8].sum() / sizes.sum(), rtol=1e-6)


def test_a_mask_of_the_photograph_is_cropped_as_the_photograph(results, tmp_path):
    # 20 × 24 pixels become 16 × 16: the middle 20 of 24 columns, which are inside. Without the crop it were 0.83.
    mask = np.zeros((20, 24), np.uint8)
    mask[:, 2:22] = 255
    name = results.ids[0]
    (tmp_path / name).parent.mkdir()
    Image.fromarray(mask).save(tmp_path / name)
    summary = ox.report_results(results, masks=tmp_path).summary
    assert summary.uniform[0] > 0.95 and summary.inside[0] > 0.95


def test_the_page_shows_classes_and_samples(results, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["report", str(results.folder), "-o", str(page), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["command"] == "report" and document["samples"] == 9
    text = page.read_text()
    assert "9 samples are explained by Input × gradient, 1 could not be." in re.sub(r"&times;", "×", text)
    assert text.count("data:image/png") >= 9 and "<script" not in text and "broken" not in results.ids
    for one in document["classes"]:
        assert f"<h3>{one['name']}</h3>" in text


def test_what_cannot_be_reported_is_refused(results, tmp_path, capsys):
    with pytest.raises(AnalysisError, match="manifest"):
        ox.report_results(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        ox.report_results(results, masks=tmp_path / "none")
    with pytest.raises(InputError, match="has the name of a sample"):
        ox.report_results(results, masks=tmp_path)
    damaged = tmp_path / results.ids[0]
    damaged.parent.mkdir()
    damaged.write_bytes(b"no image")
    with pytest.raises(InputError, match="not a readable mask"):
        ox.report_results(results, masks=tmp_path)
    assert main(["report", str(tmp_path)]) == 2
    assert main(["report", str(results.folder), "-o", str(tmp_path / "page.txt")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 2
