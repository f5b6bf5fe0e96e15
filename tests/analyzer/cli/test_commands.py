"""What the commands compute and write, on small ONNX files."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from analyzer.backends.onnxruntime import OnnxRuntime
from analyzer.cli.analyze_files import earlier_pictures
from converters import load
from converters.system.locks import only_writer


def logits(path, x):
    session = onnxruntime.InferenceSession(str(path))
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def test_analyze_explains_the_highest_class_completely(files, json_of):
    status, found = json_of("analyze", "plain.onnx", "batch.npy")
    y = logits(files / "plain.onnx", np.load(files / "batch.npy"))
    assert status == 0 and found["passed"]
    assert [sample["name"] for sample in found["samples"]] == ["batch.npy[0]", "batch.npy[1]", "batch.npy[2]"]
    for sample, row in zip(found["samples"], y, strict=True):
        result = sample["methods"]["full-grad"]
        assert result["target"] == row.argmax() == sample["predictions"][0]["index"]
        np.testing.assert_allclose(result["completeness"]["explained"], row.max(), rtol=1e-5)
        np.testing.assert_allclose(result["completeness"]["total"], row.max(), rtol=1e-4, atol=1e-5)


def test_targets_are_indices_names_synonyms_or_a_list(files, json_of):
    def targets(text, *inputs):
        _, found = json_of("analyze", "stored.onnx", *inputs, "--target", text)
        return [sample["methods"]["full-grad"]["target"] for sample in found["samples"]]

    assert targets("3", "batch.npy") == [3, 3, 3]
    assert targets("tabby, tabby cat", "single.npy") == [1]
    assert targets("Tabby Cat", "single.npy") == [1]
    assert targets("dog,0,[red]eel", "batch.npy") == [4, 0, 3]


def test_the_explained_output_is_that_of_the_target(files, json_of):
    _, found = json_of("analyze", "plain.onnx", "single.npy", "--target", "2")
    y = logits(files / "plain.onnx", np.load(files / "single.npy")[None].astype(np.float32))
    completeness = found["samples"][0]["methods"]["full-grad"]["completeness"]
    np.testing.assert_allclose(completeness["explained"], y[0, 2], rtol=1e-5)


def test_images_are_read_by_the_stored_preprocessing(files, json_of):
    _, stored = json_of("analyze", "stored.onnx", "photo.png", "other.jpg")
    flags = ("--size", "16", "--mean", "0.5", "--std", "0.25", "--resize", "20")
    _, given = json_of("analyze", "plain.onnx", "photo.png", "other.jpg", *flags)
    values = [
        [[p["value"] for p in sample["predictions"]] for sample in found["samples"]]
        for found in (stored, given)
    ]
    np.testing.assert_array_equal(*values)
    _, unit = json_of("analyze", "plain.onnx", "photo.png")
    assert unit["samples"][0]["predictions"][0]["value"] != values[0][0][0]


def test_images_without_stored_preprocessing_are_fed_in_the_unit_range_and_it_is_said(command):
    status, _, err = command("analyze", "plain.onnx", "photo.png")
    assert status == 0 and "pixels in [0, 1]" in err


def test_integrated_gradients_sum_to_the_difference_from_the_baseline(files, json_of):
    x = np.load(files / "batch.npy")
    y, black = (logits(files / "stored.onnx", array) for array in (x, np.full_like(x, (0 - 0.5) / 0.25)))
    options = ("--method", "integrated-gradients", "--baseline", "black", "--target", "4", "--steps", "64")
    _, found = json_of("analyze", "stored.onnx", "batch.npy", *options)
    explained = [s["methods"]["integrated-gradients"]["completeness"]["explained"] for s in found["samples"]]
    np.testing.assert_allclose(explained, y[:, 4] - black[:, 4], rtol=1e-4)


@pytest.mark.parametrize("baseline", ["white", "blurred", "0.5", "single.npy", "random"])
def test_every_baseline_is_taken(json_of, baseline):
    options = ("--method", "integrated-gradients", "--steps", "4", "--baseline", baseline)
    status, _ = json_of("analyze", "stored.onnx", "single.npy", *options)
    assert status == 0


def test_the_seed_decides_the_random_baseline(json_of):
    def explained(seed):
        options = ("--method", "integrated-gradients", "--steps", "2", "--baseline", "random", "--rng", seed)
        _, found = json_of("analyze", "stored.onnx", "single.npy", *options)
        return found["samples"][0]["methods"]["integrated-gradients"]["completeness"]["explained"]

    assert explained(1) == explained(1) != explained(2)


def test_an_unmet_tolerance_is_a_failed_check(json_of):
    options = (
        "--method",
        "integrated-gradients",
        "--steps",
        "512",
        "--rule",
        "trapezoid",
        "--max-error",
        "1e-12",
    )
    status, found = json_of("analyze", "stored.onnx", "single.npy", *options)
    assert status == 1 and not found["passed"]


def test_a_folder_holds_the_files_of_the_last_command_alone(files, json_of, tmp_path):
    out = tmp_path / "out"
    status, first = json_of("analyze", "stored.onnx", "batch.npy", "--method", "gradient", "-o", out)
    mine = out / "notes.png"
    mine.write_bytes(b"a picture of the user")
    status, second = json_of("analyze", "stored.onnx", "photo.png", "--method", "gradient", "-o", out)
    assert status == 0
    assert {str(path) for path in out.iterdir()} == {*second["files"], str(mine)}
    assert any("batch-2" in path for path in first["files"])
    # Another command that writes there is waited for.
    with ThreadPoolExecutor(1) as pool:
        with only_writer(out):
            waiting = pool.submit(_taken, out)
            assert wait([waiting], timeout=0.2).not_done
        assert waiting.result()
    # A summary from elsewhere removes nothing outside the folder.
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(b"")
    (out / "summary.json").write_text(json.dumps({"command": "analyze", "files": [str(elsewhere), 3]}))
    assert earlier_pictures(out) == set()
    (out / "summary.json").write_text("[")
    assert earlier_pictures(out) == set()


def _taken(folder):
    with only_writer(folder):
        return True


def test_both_methods_write_pictures_arrays_report_and_summary(files, json_of, tmp_path):
    out = tmp_path / "deep" / "out"
    methods = ("--method", "full-grad", "--method", "integrated-gradients", "--steps", "4")
    status, found = json_of("analyze", "stored.onnx", "photo.png", "batch.npy", *methods, "-o", out)
    assert status == 0
    names = {path.name for path in out.iterdir()}
    assert {"arrays.npz", "report.html", "summary.json"} < names
    stems = ("photo", "batch-0", "batch-1", "batch-2")
    kinds = ("input-term", "full-grad", "integrated-gradients")
    assert {f"{stem}-{kind}.png" for stem in stems for kind in kinds} < names
    assert {str(out / name) for name in names} == set(found["files"])
    assert json.loads((out / "summary.json").read_text())["samples"] == found["samples"]
    with Image.open(out / "photo-full-grad.png") as picture:
        assert picture.size[0] == picture.size[1] >= 16
    page = (out / "report.html").read_text()
    assert "<b>owl" not in page and "://" not in page
    with np.load(out / "arrays.npz") as arrays:
        assert arrays["full_grad/map"].shape == (4, 16, 16)
        terms = arrays["full_grad/attributions/image"]
        sums = terms.reshape(4, -1).sum(axis=1) + arrays["full_grad/layer_totals"].sum(axis=1)
        np.testing.assert_allclose(sums, arrays["full_grad/explained"], rtol=1e-4, atol=1e-5)


def test_explicit_terms_claim_no_completeness(json_of):
    status, found = json_of("analyze", "plain.onnx", "single.npy", "--terms", "explicit")
    assert status == 0 and found["samples"][0]["methods"]["full-grad"]["completeness"]["passed"] is None


def test_a_model_of_two_inputs_takes_an_npz(files, json_of):
    status, found = json_of("analyze", "two.onnx", "pair.npz", "--target", "1")
    with np.load(files / "pair.npz") as pair:
        product = pair["a"][:, 1] * pair["b"][:, 1]
    assert status == 0
    explained = [sample["methods"]["full-grad"]["completeness"]["explained"] for sample in found["samples"]]
    np.testing.assert_allclose(explained, product, rtol=1e-5)


def test_features_have_a_chart_of_layers_and_a_bar_each(json_of, tmp_path):
    status, _ = json_of("analyze", "two.onnx", "pair.npz", "-o", tmp_path / "out")
    assert status == 0
    keys = ("full-grad", "full-grad-complete")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "arrays.npz",
        "report.html",
        "summary.json",
        *(f"pair-{index}-full-grad-layers.png" for index in range(3)),
        *(f"pair-{index}-{name}-{key}.png" for index in range(3) for name in "ab" for key in keys),
    }


def test_convert_writes_a_verified_file_with_its_metadata(files, json_of, tmp_path):
    (tmp_path / "names.txt").write_text("\n".join("abcde") + "\n")
    out = tmp_path / "made.onnx"
    flags = (
        "--size",
        "16x16",
        "--mean",
        "127/255",
        "--std",
        "0.5,0.25,0.5",
        "--class-names",
        tmp_path / "names.txt",
    )
    status, found = json_of("convert", "plain.onnx", "-o", out, *flags)
    assert status == 0 and found["verification"]["relative_l2"] < 1e-5
    model = load(out)
    assert model.class_names == tuple("abcde")
    assert model.preprocessing.size == (16, 16)
    np.testing.assert_allclose(model.preprocessing.mean, 127 / 255)
    assert model.preprocessing.std == (0.5, 0.25, 0.5)
    x = np.load(files / "batch.npy")
    np.testing.assert_allclose(logits(out, x), logits(files / "plain.onnx", x), rtol=1e-5, atol=1e-6)


def test_convert_takes_class_names_as_a_list(command, tmp_path):
    out = tmp_path / "made.onnx"
    assert command("convert", "plain.onnx", "-o", out, "--class-names", "ant, bee,cat,dog,emu")[0] == 0
    assert load(out).class_names == ("ant", "bee", "cat", "dog", "emu")
    status, _, error = command("convert", "plain.onnx", "-o", out, "--class-names", "ant,,cat,dog,emu")
    assert status == 2 and "empty class name" in error


def test_a_terminal_shows_as_many_inputs_in_every_table_and_judges_no_method_that_does_not_claim(
    files, command, tmp_path
):
    rng = np.random.default_rng(3)
    np.save(tmp_path / "five.npy", rng.standard_normal((5, 3, 16, 16)).astype(np.float32))
    methods = ("--method", "full-grad", "--method", "integrated-gradients", "--steps", "1")
    status, out, _ = command("analyze", "plain.onnx", tmp_path / "five.npy", *methods, "-o", tmp_path / "out")
    assert status == 0 and "five.npy[2]" in out and "five.npy[3]" not in out.partition("Written")[0]
    results, _, written = out.partition("Written")
    tables = [part for part in re.split(r"\n\n", results) if "five.npy[2]" in part]
    assert len(tables) == 5 and all("\nand 2 more inputs" in table for table in tables)
    assert "Integrated Gradients: to explain is the difference from the output of the baseline" in results
    lines = [line.strip() for line in written.strip().splitlines()]
    assert lines[0].endswith("report.html") and len(lines) == 9
    count = len(list((tmp_path / "out").iterdir()))
    assert lines[-1] == f"and {count - 8} more files in {tmp_path / 'out'}"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Integrated Gradients is not judged" in page and "Integrated Gradients is complete" not in page
    assert "FullGrad is complete to" in page and "to explain: the difference from the output of" in page


def test_check_of_one_backend_reports_its_completeness(json_of, tmp_path):
    page = tmp_path / "check.html"
    status, found = json_of("check", "plain.onnx", "batch.npy", "--backends", "onnxruntime", "--html", page)
    assert status == 0 and found["passed"] and found["completeness"]
    assert page.read_text().rstrip().endswith("</html>")


def test_help_and_version_are_on_stdout(command):
    for arguments in ((), ("--help",), ("analyze", "--help")):
        status, out, err = command(*arguments)
        assert status == 0 and "Usage" in out and err == ""
    status, out, err = command("--version")
    assert status == 0 and out.startswith("onnxplain ") and err == ""


def test_human_output_shows_class_names_as_they_are(command):
    _, out, _ = command("analyze", "stored.onnx", "batch.npy", "--target", "dog")
    assert "[red]eel" in out or "<b>owl</b>" in out or "tabby" in out
    assert "dog (4)" in out and "holds" in out


@pytest.mark.parametrize(
    "arguments",
    [("analyze", "plain.onnx"), ("check", "plain.onnx"), ("compare", "plain.onnx", "plain.onnx")],
    ids=lambda arguments: arguments[0],
)
def test_memory_is_bounded_by_an_option(arguments, command):
    names = ("--names", "a,b") if arguments[0] == "compare" else ()
    status, out, err = command(*arguments, "batch.npy", *names, "--max-memory", "64 MiB")
    assert (status, "holds" in out or "agree" in out) == (0, True), err
    status, out, err = command(*arguments, "batch.npy", *names, "--max-memory", "20 KiB")
    assert status == 2 and "one sample needs about" in err and "--max-memory" in err
    status, _, err = command(*arguments, "batch.npy", *names, "--max-memory", "plenty")
    assert status == 2 and "'plenty'" in err and len(err.splitlines()) <= 2


@pytest.mark.parametrize("arguments", [("analyze", "plain.onnx"), ("compare", "plain.onnx", "plain.onnx")])
def test_the_samples_computed_at_once_are_an_option(arguments, command, monkeypatch):
    sizes, evaluate = [], OnnxRuntime.evaluate

    def counting(self, request, feeds, seed):
        sizes.append(len(next(iter(feeds.values()))))
        return evaluate(self, request, feeds, seed)

    monkeypatch.setattr(OnnxRuntime, "evaluate", counting)
    names = ("--names", "a,b") if arguments[0] == "compare" else ()
    status, _, err = command(*arguments, "batch.npy", *names, "--batch-size", "1")
    assert status == 0 and set(sizes) == {1}, err
    status, _, err = command(*arguments, "batch.npy", *names, "--batch-size", "0")
    assert status == 2 and "--batch-size" in err


def test_a_graph_that_is_not_the_file_is_refused_unless_asked_otherwise(files, command, json_of, monkeypatch):
    """A pass that doubles a weight is refused by every command that explains, and names the node."""
    from converters import conversion

    real = conversion.canonicalise

    def wrong(proto, **options):
        made = real(proto, **options)
        (weight, *_) = (t for t in made.graph.initializer if len(t.dims) > 1)
        weight.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(weight), weight.name))
        return made

    monkeypatch.setattr(conversion, "canonicalise", wrong)
    calls = (("analyze", "plain.onnx", "single.npy"), ("check", "plain.onnx", "single.npy", "--steps", "1"))
    for call in calls:
        status, _, errors = command(*call)
        assert status == 2 and "the first node that differs is " in " ".join(errors.split())
    assert command("analyze", "plain.onnx", "single.npy", "--no-verify")[0] == 0
    status, found = json_of(*calls[1], "--no-verify", "--backends", "onnxruntime")
    assert status == 1 and found["backends"] == ["onnxruntime", "file"] and not found["passed"]
