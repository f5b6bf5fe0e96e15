"""`onnxplain run`: parts, exit statuses, lines of JSON, interrupts, and options as those of analyze."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest

import analyzer.data.job
import onnxplain as ox
from analyzer.cli import main
from converters.system.progress_lines import Pace, duration


@pytest.fixture
def photos(files, tmp_path):
    """A folder of class folders with four photographs."""
    for name in ("tabby cat/1.png", "tabby cat/2.png", "dog/1.png", "other/1.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files / "photo.png", tmp_path / "photos" / name)
    return tmp_path / "photos"


def lines_of(text):
    """The JSON objects of stdout, one a line."""
    return [json.loads(line) for line in text.splitlines()]


def test_a_folder_is_explained_and_continued(command, photos, tmp_path):
    out = tmp_path / "out"
    given = (
        "run",
        "stored.onnx",
        photos,
        "-o",
        out,
        "--method",
        "gradient",
        "--batch-size",
        "2",
        "--part-size",
        "2",
    )
    status, shown, err = command(*given, "--json")
    assert status == 0 and "failed" not in err
    events = lines_of(shown)
    assert [one["event"] for one in events] == ["part", "part", "end"]
    assert events[0]["done"] == 2 and events[0]["total"] == 4 and events[0]["rows"] == 2
    assert events[-1]["samples"] == 4 and events[-1]["complete"] is True
    found = ox.open_results(out)
    assert found.table(["label", "label_index"]).to_pylist() == [
        {"label": "dog", "label_index": 4},
        {"label": "other", "label_index": None},
        {"label": "tabby cat", "label_index": 1},
        {"label": "tabby cat", "label_index": 1},
    ]
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    status, shown, _ = command(*given)
    assert status == 0 and "4 samples explained" in shown
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    status, _, err = command("run", "stored.onnx", photos, "-o", out)
    assert status == 2 and 'method is "gradient" there, and "full-grad"' in err and err.count("\n") == 1
    status, shown, _ = command("run", "stored.onnx", photos, "-o", out, "--no-resume", "--json")
    assert status == 0 and lines_of(shown)[-1]["samples"] == 4
    # The model is its file: the API continues what the command has begun.
    assert len(ox.explain_dataset("stored.onnx", photos, out)) == 4


def test_failed_samples_give_status_1(command, photos, tmp_path):
    (photos / "dog" / "bad.png").write_text("no image")
    out = tmp_path / "out"
    status, shown, err = command("run", "stored.onnx", photos, "-o", out)
    assert status == 1 and "1 sample failed" in shown and "failed: dog/bad.png" in err
    (line,) = (out / "errors-0000.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "dog/bad.png"
    assert (
        command("run", "plain.onnx", "photo.png", "-o", tmp_path / "one")[2].count("fed as pixels in [0, 1]")
        == 1
    )
    status, shown, _ = command("run", "stored.onnx", photos, "-o", out, "--json")
    assert status == 1 and lines_of(shown)[-1]["errors"] == 1
    status, _, err = command("run", "stored.onnx", photos, "-o", tmp_path / "fast", "--fail-fast")
    assert status == 1 and "dog/bad.png" in err.splitlines()[-1]


def test_shards_share_a_folder(command, photos, tmp_path):
    out = tmp_path / "out"
    for index in (1, 0):
        status, *_ = command(
            "run",
            "stored.onnx",
            photos,
            "-o",
            out,
            "--shard",
            f"{index}/2",
            "--part-size",
            "1",
            "--method",
            "gradient",
        )
        assert status == 0
    assert ox.open_results(out).is_complete and sorted(p.name for p in out.glob("part-*")) == [
        f"part-000{shard}-00000{number}.parquet" for shard in (0, 1) for number in (0, 1)
    ]


def test_flags_of_images_and_settings_of_methods_count(command, files, tmp_path):
    out, pattern = tmp_path / "out", tmp_path / "*.png"
    for name in ("photo.png", "notes.png"):
        shutil.copy(files / name, tmp_path)
    flags = ("--mean", "0.4", "--std", "0.2", "--target", "dog", "--attributions", "--dtype", "float16")
    method = ("--method", "integrated-gradients", "--steps", "4", "--baseline", "0")
    status, _, err = command("run", "plain.onnx", pattern, "-o", out, *flags, *method)
    # notes.png is no picture; plain.onnx has no class names.
    assert status == 2 and "class" in err
    flags = (*flags[:5], "4", *flags[6:])
    status, shown, err = command("run", "plain.onnx", pattern, "-o", out, *flags, *method, "--json")
    assert status == 1 and [one["event"] for one in lines_of(shown)] == ["error", "part", "end"]
    assert "fed as pixels" not in err
    found = ox.open_results(out)
    assert found.manifest["model"]["name"] == "plain.onnx" and found.manifest["settings"]["steps"] == 4
    image = ox.load_images(files / "photo.png", preprocessing=ox.Preprocessing((16, 16), (0.4,), (0.2,)))
    truth = ox.integrated_gradients(ox.load("plain.onnx"), image, 4, steps=4, baseline=0.0)
    np.testing.assert_allclose(found[0].attributions, truth.attributions, rtol=2e-3, atol=1e-4)
    assert found[0].attributions.dtype == np.float16 and found[0].target.tolist() == [4]
    status, shown, err = command(
        "run", "plain.onnx", "batch.npy", "-o", tmp_path / "npy", "--target", "logits=3"
    )
    assert (
        status == 0
        and not err
        and ox.open_results(tmp_path / "npy").ids
        == [
            "batch.npy[0]",
            "batch.npy[1]",
            "batch.npy[2]",
        ]
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("no-such-source", "-o", "out"), "no such file or folder"),
        (("photo.png", "-o", "photo.png"), "a file, where -o takes a folder"),
        (("photo.png", "-o", "out", "--shard", "2/2"), "--shard 2/2: expected I/N"),
        (("photo.png", "-o", "out", "--shard", "1"), "--shard 1: expected I/N"),
        (("photo.png", "-o", "out", "--method", "gradient,full-grad"), "expected one method"),
        (("photo.png", "-o", "out", "--target", "top3"), "run explains one scalar"),
        (("photo.png", "-o", "out", "--steps", "4"), "--steps is a setting of"),
        (("pair.npz", "-o", "out"), "the model's inputs are image"),
        (("photo.png",), "Missing option"),
    ],
)
def test_bad_usage_is_told_in_one_line(command, given, message, files):
    status, shown, err = command("run", "stored.onnx", *given)
    assert status == 2 and message in err and err.count("\n") == 1 and not shown
    assert not (files / "out").exists()


def test_ctrl_c_says_how_to_continue(files, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(files)
    out = tmp_path / "out"
    given = ["run", "stored.onnx", str(photos), "-o", str(out), "--batch-size", "1", "--part-size", "4"]
    take = analyzer.data.job.Job._take

    def interrupted(job, columns):
        take(job, columns)
        if job.done == 1:
            os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with monkeypatch.context() as patch:
        patch.setattr(analyzer.data.job.Job, "_take", interrupted)
        assert main(given) == 130
    err = capsys.readouterr().err
    assert "of 4 samples are done and kept in" in err and "To continue: run the same command again" in err
    assert "Traceback" not in err
    assert main([*given, "--json"]) == 0
    assert lines_of(capsys.readouterr().out)[-1]["samples"] == 4


def test_progress_has_a_rate_and_the_time_left():
    times = iter([0.0, 2.0, 4.0, 5.0])
    pace = Pace(lambda: next(times))
    assert pace.text("samples") == ""
    # What an earlier run has done does not count.
    for done, text in (
        (100, ""),
        (120, "10 samples/s, 88 s left"),
        (140, "10 samples/s, 86 s left"),
        (1000, "180 samples/s, 0 s left"),
    ):
        pace.count(done, 1000)
        assert pace.text("samples") == text
    times = iter([0.0, 1.0])
    unknown = Pace(lambda: next(times))
    unknown.count(0, 0)
    unknown.count(3, 0)
    assert unknown.text("samples") == "3 samples/s"
    assert [duration(one) for one in (5, 119, 3_600, 9_000)] == ["5 s", "2 min", "60 min", "2 h 30 min"]
