"""The examples of data sets give the maps of the method called on arrays."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import onnxplain as ox
from examples.data import pool, spark
from tests.analyzer.data.networks import image_model, photographs, png


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(image_model().save(tmp_path_factory.mktemp("model") / "model.onnx"))


def test_spark_explains_image_files(model, tmp_path):
    pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'onnxplain[spark]'")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed on this machine")
    images = photographs(5)
    for index, pixels in enumerate(images):
        (tmp_path / f"{index}.png").write_bytes(png(pixels))
    (tmp_path / "5.png").write_bytes(b"no image")
    session = spark.session(cores=1)
    try:
        explainer = ox.BatchExplainer(model, "full-grad", threads=1)
        rows = spark.explain_images(session, str(tmp_path), explainer).collect()
    finally:
        session.stop()
    rows.sort(key=lambda row: row["path"])
    assert [bool(row["error"]) for row in rows] == [False] * 5 + [True]
    expected = ox.full_grad(model, ox.load_images(images, model))
    maps = np.stack([np.reshape(row["map"], row["shape"]) for row in rows[:5]])
    np.testing.assert_allclose(maps, expected.map, rtol=1e-5)
    assert [row["target"] for row in rows] == [*expected.target, -1]


def test_a_pool_explains_arrays(model):
    images = ox.load_images(photographs(20), model)
    np.testing.assert_allclose(
        pool.maps(model, images, workers=1), ox.full_grad(model, images).map, rtol=1e-4
    )
