"""The command as a process: clean streams, exit statuses, quick start, the working directory importable."""

from __future__ import annotations

import json
import subprocess
import sys

RUN = "import sys; from analyzer.cli import main; sys.exit(main())"


def onnxplain(*arguments, cwd):
    return subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_json_is_all_of_stdout(files):
    done = onnxplain("analyze", "plain.onnx", "photo.png", "--json", cwd=files)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["command"] == "analyze"
    assert len(done.stderr.splitlines()) == 1 and "pixels in [0, 1]" in done.stderr


def test_an_error_is_all_of_stderr(files):
    done = onnxplain("analyze", "truncated.onnx", "photo.png", cwd=files)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("onnxplain: truncated.onnx")


def test_debug_shows_the_traceback(files):
    done = onnxplain("analyze", "truncated.onnx", "photo.png", "--debug", cwd=files)
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_help_and_analysis_import_no_framework(files):
    code = (
        "from analyzer.cli import main; import sys; status = main(sys.argv[1:]); print(sorted(sys.modules))"
    )
    for arguments in (["--help"], ["analyze", "stored.onnx", "photo.png"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], cwd=files, capture_output=True, text=True, timeout=120
        )
        modules = done.stdout.splitlines()[-1]
        assert "'torch'" not in modules and "'tensorflow'" not in modules and "'keras'" not in modules
        if arguments == ["--help"]:
            assert "'matplotlib'" not in modules


def test_a_factory_of_the_working_directory_is_converted_and_checked(tmp_path, files):
    (tmp_path / "nets.py").write_text(
        "import torch\n\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 8), torch.nn.ReLU(),"
        " torch.nn.Linear(8, 4))\n"
        "    return net, torch.zeros(2, 3, 4, 4)\n"
    )
    made = onnxplain("convert", "nets:make", "-o", "made.onnx", "--json", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["verification"]["relative_l2"] < 1e-5
    image = files / "photo.png"
    options = ("--backends", "onnxruntime,torch,source", "--source", "nets:make", "--json")
    checked = onnxplain("check", "made.onnx", image, *options, cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    report = json.loads(checked.stdout)
    assert report["passed"] and report["backends"] == ["onnxruntime", "torch", "source"]


def test_a_check_against_another_network_fails_with_status_1(tmp_path, files):
    (tmp_path / "twins.py").write_text(
        "import torch\n\n"
        "def make(seed):\n"
        "    torch.manual_seed(seed)\n"
        "    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 4))\n"
        "    return net, torch.zeros(2, 3, 4, 4)\n\n"
        "def one():\n    return make(1)\n\ndef other():\n    return make(2)\n"
    )
    assert onnxplain("convert", "twins:one", "-o", "one.onnx", cwd=tmp_path).returncode == 0
    options = ("--backends", "onnxruntime,source", "--source", "twins:other")
    done = onnxplain("check", "one.onnx", files / "photo.png", *options, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
