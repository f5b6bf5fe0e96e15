"""What all results share: one set of attributes, a short text, pictures, files that need no pickle."""

from __future__ import annotations

import io
import json
import pickle
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch

import onnxplain as ox
from analyzer.errors import AnalysisError
from analyzer.methods import METHODS, Attribution
from analyzer.methods.completeness import Completeness
from analyzer.methods.result import SaliencyMap
from analyzer.methods.summary import as_json, completeness_rows
from converters import convert

matplotlib.use("Agg")

# Options without which a method does not run, or runs for too long.
OPTIONS = {
    "smooth-grad": {"samples": 2},
    "smooth-grad-squared": {"samples": 2},
    "var-grad": {"samples": 2},
    "smooth-full-grad": {"samples": 2},
    "integrated-gradients": {"steps": 4},
    "conductance": {"steps": 3, "wrt": "0"},
    "blur-ig": {"steps": 3},
    "guided-ig": {"steps": 3},
    "xrai": {"steps": 2, "min_pixels": 4},
}
MAPS_ALONE = {"simple-full-grad", "smooth-full-grad", "grad-cam", "grad-cam-plus-plus", "layer-cam"}


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, (2, 3, 16, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def model(images):
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(4, 4, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(4, 3),
    ).eval()
    return convert(net, images[:1], class_names=["cat", "dog", "emu"])


@pytest.fixture(scope="module")
def results(model, images) -> dict[str, Attribution]:
    options = {**OPTIONS, "expected-gradients": {"samples": 2, "background": images}}
    return {
        name: method.run(model, images, target=1, **options.get(name, {})) for name, method in METHODS.items()
    }


@pytest.mark.parametrize("name", METHODS)
def test_every_result_has_the_attributes_of_the_base(name, results, images):
    found = results[name]
    assert isinstance(found, Attribution)
    assert found.method == name
    assert found.output.shape == (2,)
    np.testing.assert_array_equal(found.target, [1, 1])
    assert found.seconds > 0
    assert set(METHODS[name].parameters) == set(found.settings)
    assert all(found.settings[key] == value for key, value in OPTIONS.get(name, {}).items())
    (tensor,) = found.wrt
    assert isinstance(found, SaliencyMap) == (name in MAPS_ALONE) == found.is_map
    if name == "conductance":
        assert found.attributions.shape == (2, 4, 16, 16)
    elif not found.is_map:
        assert found.attributions.shape == images.shape
    np.testing.assert_array_equal(found.map, found.map(tensor))
    assert found.map.shape == (2, 16, 16)
    assert found.signed == METHODS[name].signed
    assert found.signed or name == "xrai" or not (found.map < 0).any()
    with pytest.raises(ValueError, match="no map of 'nothing'"):
        found.map("nothing")


@pytest.mark.parametrize("name", METHODS)
def test_completeness_is_of_the_sum_of_the_attributions(name, results):
    found = results[name]
    if found.completeness is None:
        assert name in MAPS_ALONE | {"gradient", "smooth-grad", "smooth-grad-squared", "var-grad", "xrai"}
        return
    own = found.attributions.sum(axis=(1, 2, 3), dtype=np.float64)
    if name == "full-grad":
        own = own + np.sum([one.total for one in found.contributions], axis=0)
    np.testing.assert_allclose(found.completeness.total, own, rtol=1e-5)
    np.testing.assert_allclose(found.delta, found.completeness.total - found.completeness.output)


@pytest.mark.parametrize("name", METHODS)
def test_text_and_html_are_short_and_name_the_class(name, results):
    text = repr(results[name])
    assert len(text.splitlines()) <= 5
    assert max(map(len, text.splitlines())) <= 110
    assert "dog" in text
    page = results[name]._repr_html_()
    assert "data:image/png;base64," in page
    assert "dog" in page


def test_names_in_html_are_escaped(model, images):
    found = ox.gradient(model, images, target=1)
    page = replace(found, class_names=("a", "<script>", "c"))._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_result_is_the_same_after_reading(name, results, tmp_path):
    found = results[name]
    path = tmp_path / "result.npz"
    found.save(path)
    _same(found, Attribution.load(path))
    _same(found, pickle.loads(pickle.dumps(found)))
    np.load(path, allow_pickle=False)  # which raises where an array is a pickle


@pytest.mark.parametrize("name", METHODS)
def test_a_subset_has_the_rows_of_the_whole(name, results, images, tmp_path):
    found = results[name]
    assert len(found) == 2
    for key, rows in (
        (1, [1]),
        (slice(1, 2), [1]),
        ([1, 0], [1, 0]),
        (np.array([True, False]), [0]),
        (-2, [0]),
    ):
        part = found[key]
        assert type(part) is type(found) and len(part) == len(rows)
        for field in (
            "attributions",
            "map",
            "output",
            "target",
            "ranks",
            "layer_map",
            "delta",
            "complete_map",
        ):
            whole = getattr(found, field, None)
            if whole is not None:
                np.testing.assert_array_equal(getattr(part, field), whole[rows])
        assert part.passed == tuple(found.passed[row] for row in rows)
        if found.completeness is not None:
            for whole, own in zip(
                vars(found.completeness).values(), vars(part.completeness).values(), strict=True
            ):
                np.testing.assert_array_equal(own, whole[rows])
        if name == "full-grad":
            assert all(
                (b.total == a.total[rows]).all() for a, b in zip(found.layers, part.layers, strict=True)
            )
            assert found.bias_terms.keys() == part.bias_terms.keys() != set()
            assert all((part.bias_terms[key] == term[rows]).all() for key, term in found.bias_terms.items())
    assert part.class_of(0) == found.class_of(0) and len(json.loads(part.to_json())["output"]) == 1
    part.save(tmp_path / "part.npz")
    _same(part, Attribution.load(tmp_path / "part.npz"))
    if name in ("full-grad", "integrated-gradients"):
        titles = [axes.get_title(loc) for axes in part.plot(images[:1]).axes for loc in ("left", "center")]
        assert found.caption in titles and "attribution" not in titles and len(list(found)) == 2


def test_a_model_and_a_layer_have_a_short_text(model, results):
    lines = repr(model).splitlines()
    assert len(lines) == 4 and max(map(len, lines)) <= 110
    assert (
        "from PyTorch, relative L2" in lines[0]
        and "(batch, 3, 16, 16)" in lines[1]
        and "(batch, 3)" in lines[2]
    )
    # Two convolutions and a dense layer: 4·3·9 + 4 + 4·4·9 + 4 + 4·3 + 3.
    assert f"{len(model.proto.graph.node)} nodes" in lines[3] and "275 parameters, opset 23" in lines[3]
    layer = results["full-grad"].layers[0]
    text = repr(layer)
    assert text.startswith(f"Layer({layer.name!r}, explicit, 1 term, total ") and len(text.splitlines()) == 1
    assert f"{layer.total[0]:.4g}, {layer.total[1]:.4g}" in text


def test_a_subset_that_cannot_be_is_refused(results):
    found = results["gradient"]
    for key in (2, -3, [0, 5], slice(2, 9), [True]):
        with pytest.raises(IndexError, match="Fix: "):
            found[key]
    for key in ("a", 1.5, (0, 1), [0.5]):
        with pytest.raises(TypeError, match="expected an index"):
            found[key]
    with pytest.raises(AnalysisError, match="explained as one"):
        replace(found, joint=True)[0]
    with pytest.raises(AnalysisError, match="2 samples are not found"):
        replace(found, attributions=found.attributions[:1])[0]


def test_a_subset_of_several_classes_has_all_of_them(model, images):
    found = ox.integrated_gradients(model, images, target=ox.Target(top=2), steps=2, tolerance=None)
    part = found[1:]
    assert part.output.shape == (1, 2) and part.rank(1).output == found.rank(1).output[1]
    np.testing.assert_array_equal(part.rank(1).attributions, found.rank(1).attributions[1:])
    one = found.of_each_class[0][[1]]
    assert one.classes == (found.of_each_class[0].classes[1],)


def _same(a: Attribution, b: Attribution) -> None:
    assert type(a) is type(b)
    np.testing.assert_array_equal(a.attributions, b.attributions)
    np.testing.assert_array_equal(a.map, b.map)
    assert a.to_json() == b.to_json()
    assert repr(a) == repr(b)
    assert a.settings == b.settings


def test_bias_terms_are_kept_where_they_were_computed(model, images, tmp_path):
    found = ox.full_grad(model, images, target=1)
    found.save(tmp_path / "without.npz")
    with pytest.raises(ox.AnalysisError, match="bias terms were not computed"):
        dict(Attribution.load(tmp_path / "without.npz").bias_terms)
    terms = dict(found.bias_terms)
    found.save(tmp_path / "with.npz")
    kept = Attribution.load(tmp_path / "with.npz").bias_terms
    assert set(kept) == set(terms)
    for name, term in terms.items():
        np.testing.assert_array_equal(kept[name], term)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_other_files_are_refused(content, tmp_path):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(ox.AnalysisError, match=r"Fix: give a file that Attribution\.save wrote"):
        Attribution.load(tmp_path / "x.npz")


def test_foreign_archives_and_later_versions_are_refused(tmp_path):
    np.savez(tmp_path / "foreign.npz", x=np.zeros(3))
    with pytest.raises(ox.AnalysisError, match=r"expected an \.npz file that Attribution\.save wrote"):
        Attribution.load(tmp_path / "foreign.npz")
    for text, message in [
        ({"version": 99, "value": 1}, "expected version 1"),
        (
            {"version": 1, "value": {"object": "Popen", "fields": {}}},
            "the fields are not those of Attribution",
        ),
        ({"version": 1, "value": 3}, "got one of int"),
    ]:
        np.savez(tmp_path / "odd.npz", content=np.array(json.dumps(text)))
        with pytest.raises(ox.AnalysisError, match=message):
            Attribution.load(tmp_path / "odd.npz")
    with pytest.raises(ox.AnalysisError, match="No such file"):
        Attribution.load(tmp_path / "missing.npz")


def test_json_and_table_hold_the_numbers(results):
    found = results["integrated-gradients"]
    document = json.loads(found.to_json())
    assert document["target_name"] == ["dog", "dog"]
    np.testing.assert_allclose(document["total"], found.completeness.total)
    table = found.to_pandas()
    assert list(table["target_name"]) == ["dog", "dog"]
    np.testing.assert_allclose(table["total"], found.completeness.total)


def test_plots_take_axes_colours_and_titles(results, images):
    import matplotlib.pyplot as plt

    found = results["integrated-gradients"]
    figure = found.plot(images, title="Mine", cmap="viridis", alpha=0.3)
    assert figure._suptitle.get_text() == "Mine"
    captions = [axes.get_title(loc="left") for axes in figure.axes]
    assert "0: dog" in captions
    assert not np.array_equal(_pixels(figure), _pixels(found.plot(images, title="Mine")))
    fig, axes = plt.subplots(1, 2)
    assert found.plot(images, ax=axes[1], sample=1) is fig
    assert axes[1].images and not axes[0].images
    assert axes[1].get_title(loc="left") == "1: dog"
    plt.close("all")
    with pytest.raises(ValueError, match="colour map"):
        found.plot(images, cmap="no such map")
    with pytest.raises(ValueError, match="alpha"):
        found.plot(images, alpha=2)
    with pytest.raises(ValueError, match="sample"):
        found.plot(images, sample=2)


def test_plt_show_finds_the_figure_of_a_script(results, images):
    import matplotlib.pyplot as plt

    plt.close("all")
    figure = results["full-grad"].plot(images)
    assert [plt.figure(number) for number in plt.get_fignums()] == [figure]
    results["full-grad"]._repr_html_()
    assert len(plt.get_fignums()) == 1
    plt.close("all")


def test_one_class_of_several_is_drawn(model, images):
    ranked = ox.integrated_gradients(model, images, target=ox.Target(top=2), steps=2)
    with pytest.raises(ox.AnalysisError, match=r"result\.rank\(0\)"):
        ranked.plot(images)
    assert "2 classes" in repr(ranked)
    assert ranked.rank(1).plot(images) is not None
    assert len(ranked.of_each_class) == 2
    assert len(ranked.to_pandas()) == 4


def test_old_spellings_work_and_warn(model, images):
    with pytest.warns(DeprecationWarning, match=r"smooth_grad\(rng=…\)"):
        old = ox.smooth_grad(model, images, target=1, samples=2, seed=3)
    new = ox.smooth_grad(model, images, target=1, samples=2, rng=3)
    np.testing.assert_array_equal(old.attributions, new.attributions)
    with pytest.warns(DeprecationWarning, match=r"plot\(images=…\)"):
        new.plot(inputs=images)


def test_a_generator_is_taken_for_randomness(model, images):
    first = ox.smooth_grad(model, images, samples=2, rng=np.random.default_rng(5))
    again = ox.smooth_grad(model, images, samples=2, rng=np.random.default_rng(5))
    np.testing.assert_array_equal(first.attributions, again.attributions)
    for wrong in (-1, 1.5, "seed", True):
        with pytest.raises(ox.AnalysisError, match="expected rng as a Generator or a whole number"):
            ox.smooth_grad(model, images, samples=2, rng=wrong)


def _pixels(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="raw")
    return buffer.getvalue()


def test_all_samples_of_a_result_are_judged_once(monkeypatch):
    """Tables and records have a row for each sample: to judge all samples for each row would take minutes."""
    x = np.random.default_rng(0).standard_normal((20, 3)).astype(np.float32)
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()
    model = convert(net, torch.from_numpy(x))
    results = [ox.full_grad(model, x), ox.integrated_gradients(model, x, steps=4, tolerance=None)]
    judged = []
    real = Completeness.within
    monkeypatch.setattr(Completeness, "within", lambda self, most: judged.append(self) or real(self, most))
    names = [f"{index}" for index in range(20)]
    rows = completeness_rows(results, names)
    records = [as_json(results, index, None) for index in range(20)]
    assert [row.sample for row in rows] == [name for name in names for _ in results]
    assert all(record["full-grad"]["completeness"]["passed"] is True for record in records)
    assert len(judged) <= len(results)
