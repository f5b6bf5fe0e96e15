"""A data set is explained in parts: equal to the API, continued bitwise after any end, refused for another job."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas
import pyarrow.parquet as pq
import pytest

import onnxplain as ox
from analyzer.data.identity import described
from analyzer.data.job import SampleFailed
from analyzer.data.manifest import OtherJob
from analyzer.errors import AnalysisError
from tests.analyzer.data.networks import CLASSES, image_model, image_network, table_network
from tests.analyzer.data.runs import SIZES


def test_rows_are_those_of_the_api(undisturbed, model_file, photos):
    results, out = undisturbed
    assert [path.name for path in sorted(out.iterdir())] == [
        "manifest.json",
        *(f"part-0000-00000{k}.parquet" for k in range(3)),
    ]
    assert len(results) == 9 and results.errors == [] and results.is_complete
    assert results.ids[:2] == ["cat/img0.png", "cat/img2.png"]
    images = ox.load_images([photos / one for one in results.ids], model_file)
    found = ox.full_grad(ox.load(model_file), images)
    every = results[:]
    np.testing.assert_allclose(every.map, found.map, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(every.attributions, found.attributions, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(every.output, found.output, rtol=1e-5)
    np.testing.assert_array_equal(every.target, found.target)
    np.testing.assert_array_equal(results[-1].map, every.map[-1:])
    np.testing.assert_array_equal(results[[5, 2, 8]].map, every.map[[5, 2, 8]])
    np.testing.assert_array_equal([one.output[0] for one in results], every.output)
    assert every.signed is found.signed and every.caption == "FullGrad" and every.wrt == ("image",)
    assert every.class_of(0) in CLASSES and every.completeness.error.max() < 1e-4
    assert every.settings == found.settings
    with pytest.raises(IndexError):
        _ = results[9]


def test_one_part_alone_can_be_understood_and_read_by_others(undisturbed):
    results, out = undisturbed
    frame = pandas.read_parquet(out / "part-0000-000001.parquet")
    assert frame["position"].tolist() == [4, 5, 6, 7]
    assert frame["label"].tolist() == ["cat", "dog", "dog", "dog"]
    assert frame["label_index"].tolist() == [0, 1, 1, 1]
    np.testing.assert_array_equal(np.stack(frame["map"]).reshape(4, 16, 16), results[4:8].map)
    schema = pq.read_schema(out / "part-0000-000001.parquet")
    assert (
        str(schema.field("map").type)
        == "extension<arrow.fixed_shape_tensor[value_type=float, shape=[16,16]]>"
    )
    assert json.loads(schema.metadata[b"onnxplain"])["class_names"] == list(CLASSES)
    assert b"meaning" in schema.field("output").metadata
    whole = pandas.concat(map(pandas.read_parquet, results.paths))
    assert sorted(whole["position"]) == list(range(9))
    labelled = whole.set_index("id")
    scores = np.exp(labelled["output"]) / labelled["probability"]
    assert (labelled["probability"] > 1 / 3).all() and (scores > np.exp(labelled["output"])).all()
    assert results.table(["id", "map"]).schema.names == ["id", "map"]
    with pytest.raises(AnalysisError, match="no column 'maps'"):
        results.table(["maps"])


def test_the_manifest_says_what_was_done(undisturbed, model_file):
    manifest = undisturbed[0].manifest
    import hashlib

    assert manifest["model"] == {
        "name": "m.onnx",
        "sha256": hashlib.sha256(Path(model_file).read_bytes()).hexdigest(),
    }
    assert manifest["method"] == "full-grad" and manifest["samples"] == 9
    assert manifest["versions"]["numpy"] == np.__version__
    assert manifest["schema"]["map"]["shape"] == [16, 16] and manifest["schema"]["output"]["meaning"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "gradient"}, 'method is "full-grad" there, and "gradient" in this run'),
        ({"target": "dog"}, 'target is null there, and "dog"'),
        ({"dtype": "float16"}, "dtype"),
        ({"attributions": False}, "attributions"),
        ({"batch_size": 3}, "batch_size is 2 there, and 3"),
        ({"shard": (0, 2)}, "shards is 1 there, and 2"),
        ({"source": {"image": np.zeros((9, 3, 16, 16), np.float32)}}, "source.kind"),
        ({"abs_before_sum": True}, "TypeError"),
        ({"model": image_network()}, "model.sha256"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_job_is_refused(change, message, model_file, photos, undisturbed):
    given = {"model": model_file, "source": photos, "out": undisturbed[1], "attributions": True, **SIZES}
    before = {path: path.stat().st_mtime_ns for path in undisturbed[1].iterdir()}
    if message == "TypeError":
        with pytest.raises(TypeError, match="abs_before_sum"):
            ox.explain_dataset(**{**given, **change})
    else:
        with pytest.raises(OtherJob) as raised:
            ox.explain_dataset(**{**given, **change})
        assert message in str(raised.value) and "resume=False" in str(raised.value)
    assert {path: path.stat().st_mtime_ns for path in undisturbed[1].iterdir()} == before


def test_another_folder_of_images_is_refused_and_replaced_on_request(model_file, photos, tmp_path):
    own = tmp_path / "photos"
    own.mkdir()
    for path in photos.glob("cat/*"):
        (own / path.name).write_bytes(path.read_bytes())
    out = tmp_path / "out"
    ox.explain_dataset(model_file, own, out, "gradient", **SIZES)
    (own / "img0.png").rename(own / "other.png")
    with pytest.raises(OtherJob, match=r"source\.ids"):
        ox.explain_dataset(model_file, own, out, "gradient")
    (out / "notes.txt").write_text("mine")
    found = ox.explain_dataset(model_file, own, out, "grad-cam", resume=False, batch_size=5)
    assert len(found) == 5 and found.manifest["method"] == "grad-cam" and (out / "notes.txt").exists()


def test_failed_samples_are_listed_and_the_run_goes_on(model_file, photos, tmp_path):
    bad, text = tmp_path / "bad.png", tmp_path / "list.txt"
    bad.write_bytes(b"no image")
    good = sorted(photos.glob("*/*.png"))
    names = [good[0], bad, good[1], tmp_path / "missing.png", bad, good[2]]
    text.write_text("\n".join(map(str, names)))
    out = tmp_path / "out"
    found = ox.explain_dataset(model_file, text, out, "gradient", batch_size=1, part_size=3)
    assert found.table(["position"])["position"].to_pylist() == [0, 2, 5] and found.samples == 6
    lines = [json.loads(line) for line in (out / "errors-0000.jsonl").read_text().splitlines()]
    assert lines == found.errors
    assert [(one["id"], one["position"]) for one in lines] == [(str(names[k]), k) for k in (1, 3, 4)]
    assert "not a readable image" in lines[0]["reason"] and "no such file" in lines[1]["reason"]
    # The list is made of the parts: where it was lost, the next run writes it again.
    (out / "errors-0000.jsonl").unlink()
    again = ox.explain_dataset(model_file, text, out, "gradient")
    assert [json.loads(line) for line in (out / "errors-0000.jsonl").read_text().splitlines()] == again.errors
    with pytest.raises(SampleFailed, match=r"bad\.png.*position 1"):
        ox.explain_dataset(model_file, text, tmp_path / "fast", "gradient", fail_fast=True, batch_size=2)
    text.write_text(str(bad))
    none = ox.explain_dataset(model_file, text, tmp_path / "none", "gradient")
    assert len(none) == 0 and len(none.errors) == 1 and none.ids == [] and none.is_complete


@pytest.mark.parametrize(("shards", "part_size"), [(2, 2), (3, 1), (4, 4)])
def test_shards_cover_every_sample_once(shards, part_size, tmp_path, table_rows, table_truth):
    out = tmp_path / "out"
    for index in reversed(range(shards)):
        ox.explain_dataset(
            table_network(),
            table_rows,
            out,
            "input-x-gradient",
            shard=(index, shards),
            part_size=part_size,
            batch_size=2,
        )
    found = ox.open_results(out)
    assert found.is_complete and found.table(["position"])["position"].to_pylist() == list(range(11))
    for name, array in table_truth.items():
        np.testing.assert_allclose(found[:].map(name), array, rtol=1e-4, atol=1e-6)


def test_samples_of_different_sizes_keep_their_shapes(tmp_path):
    rng = np.random.default_rng(0)
    samples = [rng.standard_normal((3, 8 + k, 9)).astype(np.float32) for k in range(5)]
    network = image_network("S")
    for kind in ("H", "W"):
        network.graph.input[0].type.tensor_type.shape.dim[2 if kind == "H" else 3].dim_param = kind
    found = ox.explain_dataset(network, samples, tmp_path / "out", batch_size=2, part_size=4)
    truth = [ox.full_grad(ox.convert(network), one[None]) for one in samples]
    for one, expected in zip(found, truth, strict=True):
        np.testing.assert_allclose(one.map, expected.map, rtol=1e-4, atol=1e-5)
    with pytest.raises(AnalysisError, match="different shapes"):
        _ = found[:]


def test_the_class_of_the_label_is_explained_on_request(model_file, photos, tmp_path):
    (tmp_path / "photos").mkdir()
    for name in ("cat", "dog", "other"):
        (tmp_path / "photos" / name).mkdir()
        path = next((photos / "dog").glob("*"))
        (tmp_path / "photos" / name / "a.png").write_bytes(path.read_bytes())
    found = ox.explain_dataset(model_file, tmp_path / "photos", tmp_path / "out", "gradient", target="label")
    assert found.table(["target", "label"]).to_pylist() == [
        {"target": 0, "label": "cat"},
        {"target": 1, "label": "dog"},
    ]
    assert "no class has the label 'other'" in found.errors[0]["reason"]
    image = ox.load_images(tmp_path / "photos" / "dog", model_file)
    np.testing.assert_allclose(
        found[1].map, ox.gradient(ox.load(model_file), image, 1).map, rtol=1e-4, atol=1e-6
    )


def test_workers_give_the_rows_of_this_process(model_file, photos, tmp_path, undisturbed):
    found = ox.explain_dataset(model_file, photos, tmp_path / "out", attributions=True, workers=1, **SIZES)
    assert found.ids == undisturbed[0].ids
    np.testing.assert_allclose(found[:].map, undisturbed[0][:].map, rtol=1e-5, atol=1e-6)


def test_half_precision_and_methods_with_their_own_class(tmp_path, model_file, photos):
    found = ox.explain_dataset(model_file, photos, tmp_path / "half", "grad-cam", dtype="float16")
    assert found[0].map.dtype == np.float16 and isinstance(found[0], ox.SaliencyMap) and found[0].is_map
    assert pandas.read_parquet(found.paths[0])["map"][0].dtype == np.float16
    ig = ox.explain_dataset(
        ox.load(model_file),
        photos,
        tmp_path / "ig",
        "integrated-gradients",
        steps=4,
        attributions=True,
        target=1,
    )
    images = ox.load_images([photos / one for one in ig.ids], model_file)
    truth = ox.integrated_gradients(ox.load(model_file), images, 1, steps=4)
    np.testing.assert_allclose(ig[:].attributions, truth.attributions, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(ig[:].completeness.error, truth.completeness.error, rtol=1e-3, atol=1e-6)
    assert ig[0].settings["steps"] == 4 and ig[0].signed
    assert ig.manifest["batch_size"] == 16 and ig.manifest["part_size"] == 128
    with pytest.raises(AnalysisError, match="seed"):
        ox.explain_dataset(model_file, photos, tmp_path / "rng", "smooth-grad", rng=np.random.default_rng(0))


def test_a_damaged_part_and_a_foreign_manifest_are_refused(model_file, photos, tmp_path):
    out = tmp_path / "out"
    ox.explain_dataset(model_file, photos, out, "gradient", **SIZES)
    part = out / "part-0000-000001.parquet"
    part.write_bytes(part.read_bytes()[:-9])
    with pytest.raises(AnalysisError, match=r"part-0000-000001.parquet: not a readable part.*Fix: remove"):
        ox.open_results(out)
    part.unlink()
    assert len(ox.explain_dataset(model_file, photos, out, "gradient")) == 9
    (out / "manifest.json").write_text('{"name": "an app"}')
    for call in (
        lambda: ox.open_results(out),
        lambda: ox.explain_dataset(model_file, photos, out, "gradient"),
    ):
        with pytest.raises(AnalysisError, match="expected a manifest"):
            call()
    with pytest.raises(AnalysisError, match=r"found no manifest\.json"):
        ox.open_results(tmp_path)


def test_a_model_in_memory_is_told_from_another_by_its_weights(tmp_path, photos):
    model = image_model()
    ox.explain_dataset(model, photos, tmp_path / "out", "gradient")
    assert len(ox.explain_dataset(image_model(), photos, tmp_path / "out", "gradient")) == 9
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    values = onnx.numpy_helper.to_array(proto.graph.initializer[0]).copy()
    values.flat[0] += 1e-3
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, proto.graph.initializer[0].name))
    with pytest.raises(OtherJob, match=r"model\.sha256"):
        ox.explain_dataset(replace(model, proto=proto), photos, tmp_path / "out", "gradient")


def test_without_pyarrow_the_extra_is_named(model_file, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: ox.open_results(tmp_path), lambda: ox.explain_dataset(model_file, photos, tmp_path)):
        with pytest.raises(AnalysisError, match=r"pyarrow.*onnxplain\[data\]"):
            call()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shard": (2, 2)}, "shard"),
        ({"shard": 3}, "shard"),
        ({"batch_size": 0}, "batch_size"),
        ({"part_size": 1.5}, "part_size"),
        ({"method": "fullgrad"}, "full-grad"),
        ({"dtype": "int8"}, "dtype"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    settings, message, model_file, photos, tmp_path
):
    with pytest.raises(AnalysisError, match=message):
        ox.explain_dataset(model_file, photos, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_settings_of_a_job_are_told_apart_by_their_values():
    zero, one = np.zeros(3, np.float32), np.ones(3, np.float32)
    pairs = [(zero, one), (zero, zero.astype(np.float64)), (zero, zero[None]), ([zero], [one]), (1, 2)]
    pairs += [(make(zero), make(one)) for make in (ox.Dataset, lambda a: ox.Target(weights={"y": a}))]
    pairs += [(ox.Target("a"), ox.Target("b")), (ox.Target(index=0), 0)]
    for first, second in pairs:
        assert described(first) == described(first) != described(second)
        json.dumps(described(first))
    with pytest.raises(AnalysisError, match="got function"):
        described(lambda: 0)
