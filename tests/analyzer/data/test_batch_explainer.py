"""BatchExplainer: equal to the method called on arrays, whatever the columns hold; a sample at fault is alone."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import onnxplain as ox
from analyzer.backends.onnxruntime import OnnxRuntime
from analyzer.data.columns import FIXED
from tests.analyzer.data.networks import image_model, image_network, photographs, png, table_network


@pytest.fixture(scope="module")
def model():
    return image_model()


def test_numbers_and_arrays_are_those_of_the_method(model):
    images = photographs(5)
    inputs = ox.load_images(images, model)
    explained = ox.integrated_gradients(model, inputs, steps=8)
    logits = ox.differentiate(model).forward(inputs)["logits"].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    explainer = ox.BatchExplainer(model, "integrated-gradients", attributions=True, steps=8)
    found = explainer({"image": inputs, "id": np.array(list("abcde")), "label": np.arange(5)})
    assert list(found) == ["id", "label", *(c.name for c in FIXED), "map", "attributions"]
    assert list(found["id"]) == list("abcde")
    assert (found["target"] == logits.argmax(axis=1)).all()
    assert (found["predicted"] == logits.argmax(axis=1)).all()
    assert list(found["error"]) == [""] * 5
    np.testing.assert_allclose(found["output"], logits.max(axis=1), rtol=1e-6)
    np.testing.assert_allclose(found["probability"], shares.max(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(found["map"], explained.map)
    np.testing.assert_array_equal(found["attributions"], explained.attributions)
    np.testing.assert_array_equal(found["completeness_error"], explained.completeness.error)
    # The attributions sum to the difference of the logits at the image and at the baseline.
    at_zero = ox.differentiate(model).forward(np.zeros_like(inputs))["logits"]
    chosen = logits - at_zero
    sums = found["attributions"].reshape(5, -1).sum(axis=1)
    np.testing.assert_allclose(sums, chosen[np.arange(5), found["target"]], atol=0.05)


def test_scores_of_all_classes_come_from_the_run_that_explains(model, monkeypatch):
    explainer = ox.BatchExplainer(model, "gradient")
    batch = {"image": ox.load_images(photographs(4), model)}
    expected = explainer(batch)
    runs = []
    ran = OnnxRuntime._run_session
    monkeypatch.setattr(OnnxRuntime, "_run_session", lambda *given: runs.append(1) or ran(*given))
    found = explainer({"image": batch["image"] * 0.5})
    assert len(runs) == 1
    assert (found["predicted"] >= 0).all() and not (found["output"] == expected["output"]).any()


def test_images_come_as_arrays_pixels_bytes_paths_and_in_the_layout_of_data_sets(model, tmp_path):
    images = photographs(3)
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path, pixels in zip(paths, images, strict=True):
        path.write_bytes(png(pixels))
    forms = {
        "arrays": ox.load_images(images, model),
        "pixels": np.stack(images),
        "pixels of many sizes": _objects([*images[:2], images[2]]),
        "channels first": np.stack(images).transpose(0, 3, 1, 2),
        "bytes": [png(pixels) for pixels in images],
        "paths": [str(path) for path in paths],
        "hugging face": [
            {"bytes": png(images[0]), "path": None},
            {"bytes": None, "path": str(paths[1])},
            png(images[2]),
        ],
    }
    explainer = ox.BatchExplainer(model, "gradient")
    expected = explainer({"image": forms["arrays"]})
    assert not any(expected["error"])
    for name, column in forms.items():
        found = explainer({"image": column})
        assert list(found["error"]) == [""] * 3, name
        np.testing.assert_array_equal(found["map"], expected["map"], err_msg=name)


def _objects(values):
    found = np.empty(len(values), object)
    found[:] = values
    return found


def test_samples_at_fault_have_a_reason_and_the_others_are_explained(model):
    images = photographs(6)
    good = ox.BatchExplainer(model)({"image": np.stack(images)})
    column = [png(one) for one in images]
    column[1], column[4] = b"no image", png(images[4])[:40]
    targets = [None, 0, 1, 7, 0, "dog"]
    found = ox.BatchExplainer(model)(
        {"image": column, "target": targets, "error": ["", "", "gone", "", "", None]}
    )
    failed = [bool(reason) for reason in found["error"]]
    assert failed == [False, True, True, True, True, False]
    assert "not a readable image" in found["error"][1]
    assert found["error"][2] == "gone"
    assert "7" in found["error"][3]
    assert list(found["target"]) == [good["target"][0], -1, -1, -1, -1, 1]
    assert np.isnan(found["output"][failed]).all() and np.isnan(found["map"][failed]).all()
    np.testing.assert_allclose(found["map"][0], good["map"][0], rtol=1e-5)


def test_a_class_of_each_sample_is_that_class_alone(model):
    inputs = ox.load_images(photographs(4), model)
    found = ox.BatchExplainer(model, "gradient")({"x": inputs, "target": np.array([2, -1, 0, 2])})
    logits = ox.differentiate(model).forward(inputs)["logits"]
    chosen = [2, int(logits[1].argmax()), 0, 2]
    assert list(found["target"]) == chosen
    np.testing.assert_allclose(found["output"], logits[np.arange(4), chosen], rtol=1e-5)
    assert (found["predicted"] == logits.argmax(axis=1)).all()


def test_several_inputs_have_a_column_each_and_a_sigmoid_is_the_probability():
    rng = np.random.default_rng(0)
    batch = {"a": rng.standard_normal((3, 4), np.float32), "b": rng.standard_normal((3, 2), np.float32)}
    found = ox.BatchExplainer(table_network(), "input-x-gradient", attributions=True, keep_inputs=True)(batch)
    assert [name for name in found if name.startswith(("map", "attr"))] == [
        "map/a", "map/b", "attributions/a", "attributions/b",
    ]  # fmt: skip
    np.testing.assert_array_equal(found["a"], batch["a"])
    np.testing.assert_allclose(found["probability"], found["output"], rtol=1e-6)
    assert list(found["predicted"]) == [-1] * 3
    logit = ox.BatchExplainer(
        table_network(), "gradient", target=ox.Target(index=0, before="sigmoid"), wrt="a"
    )(batch)
    np.testing.assert_allclose(logit["probability"], found["output"], rtol=1e-6)
    assert logit["map"].shape == (3, 4)


def test_samples_of_many_shapes_are_explained_in_their_own():
    rng = np.random.default_rng(0)
    images = [rng.standard_normal((3, size, 6)).astype(np.float32) for size in (5, 7, 5)]
    explainer = ox.BatchExplainer(image_network("side"), "full-grad", attributions=True)
    found = explainer({"image": _objects([*images, np.zeros((2, 5, 5), np.float32)])})
    assert found["map"].dtype == object and [one.shape for one in found["map"]] == [
        (5, 6),
        (7, 6),
        (5, 6),
        (0, 0),
    ]
    for row, image in enumerate(images):
        alone = ox.full_grad(image_network("side"), image[None])
        np.testing.assert_allclose(found["attributions"][row], alone.attributions[0], rtol=1e-5, atol=1e-7)
    assert "shape" in found["error"][3]
    assert [c.shape for c in explainer.schema() if c.name == "map"] == [None]
    blocks = ox.BatchExplainer(image_network("side"))
    blocks.one_array = False
    for block in ([images[0], images[2]], [images[1]]):
        maps = blocks({"image": np.stack(block)})["map"]
        assert [one.shape for one in maps] == [one.shape[1:] for one in block]
    one_size = ox.BatchExplainer(image_network("side"))
    assert [c.shape for c in one_size.schema({"image": np.stack([images[0]])}) if c.name == "map"] == [(5, 6)]


def test_a_path_stays_a_path_and_is_read_in_any_folder(model, tmp_path, monkeypatch):
    model.save(tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    explainer = ox.BatchExplainer("model.onnx", "gradient")
    data = pickle.dumps(explainer)
    assert len(data) < 1000 < len(pickle.dumps(ox.BatchExplainer(model, "gradient")))
    monkeypatch.chdir("/")
    batch = {"image": np.stack(photographs(2))}
    np.testing.assert_array_equal(pickle.loads(data)(batch)["map"], explainer(batch)["map"])


def test_the_schema_is_that_of_the_columns(model):
    explainer = ox.BatchExplainer(model, "full-grad", attributions=True, dtype="float16")
    columns = {column.name: column for column in explainer.schema()}
    found = pickle.loads(pickle.dumps(explainer))({"image": np.stack(photographs(2))})
    assert list(found) == list(columns)
    for name, column in columns.items():
        assert found[name].shape[1:] == column.shape
        assert found[name].dtype == (object if column.dtype == "string" else column.dtype)
        assert column.meaning
    assert columns["map"].tensor == columns["attributions"].tensor == "image"
    nothing = explainer({"image": np.zeros((0, 3, 16, 16), np.float32)})
    assert {name: array.shape for name, array in nothing.items()} == {
        name: (0, *column.shape) for name, column in columns.items()
    }


def test_float16_refuses_numbers_that_it_does_not_hold(model):
    inputs = ox.load_images(photographs(2), model)
    small = ox.Target(weights=np.full(3, 1e-9, np.float32))
    found = ox.BatchExplainer(model, "gradient", target=small, dtype="float16")({"image": inputs})
    assert all('dtype="float32"' in reason for reason in found["error"])
    assert not any(ox.BatchExplainer(model, "gradient", target=small)({"image": inputs})["error"])


ERRORS = [
    ({"method": "fullgrad"}, "give 'full-grad'", ox.AnalysisError),
    ({"dtype": "int8"}, "dtype", ox.AnalysisError),
    ({"method": "integrated-gradients", "stepps": 3}, "steps", TypeError),
    ({"method": "smooth-grad", "rng": np.random.default_rng(0)}, "seed", ox.AnalysisError),
    ({"target": [0, 1]}, "column", ox.AnalysisError),
    ({"target": ox.Target(top=3)}, "one class", ox.AnalysisError),
    ({"target": ox.Target(index=np.array([0, 1]))}, "column", ox.AnalysisError),
]


@pytest.mark.parametrize(("options", "words", "kind"), ERRORS)
def test_a_wrong_option_is_refused_before_any_work(options, words, kind):
    with pytest.raises(kind, match=words):
        ox.BatchExplainer("model.that.is.not.read", **options)


def test_an_error_of_all_samples_is_raised(model):
    batch = {"image": np.stack(photographs(2))}
    with pytest.raises(ox.AnalysisError, match="no such file"):
        ox.BatchExplainer("missing.onnx")
    for explainer, given, words in [
        (ox.BatchExplainer(model, target=9), batch, "9"),
        (ox.BatchExplainer(model, wrt="nothing"), batch, "nothing"),
        (ox.BatchExplainer(model, "integrated-gradients", steps=-1), batch, "steps"),
        (ox.BatchExplainer(model, column="photo"), batch, "photo"),
        (ox.BatchExplainer(model), {**batch, "output": [1, 2]}, "output"),
        (ox.BatchExplainer(model, target=1), {**batch, "target": [1, 2]}, "target"),
        (ox.BatchExplainer(model), {**batch, "id": [1]}, "lengths"),
        (ox.BatchExplainer(image_network()), {"image": [png(photographs(1)[0])]}, "preprocessing"),
        (
            ox.BatchExplainer(model, "integrated-gradients", baseline=np.zeros((2, 3, 16, 16), "f4")),
            batch,
            "baseline",
        ),
    ]:  # fmt: skip
        with pytest.raises(ox.AnalysisError, match=words):
            explainer(given)
