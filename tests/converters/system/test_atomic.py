"""A file is written whole or not at all, whenever the process is killed."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import sys
import time

import pytest

from converters.system import atomic
from converters.system.atomic import write_bytes, write_text

# Writes files of one repeated byte. Loads the module alone, since the package takes long to import.
WRITER = """
import runpy, sys
write_bytes = runpy.run_path(sys.argv[2])["write_bytes"]
for number in range(10**6):
    data = bytes([number % 256]) * 500_000
    write_bytes(f"{sys.argv[1]}/{number}.bin", data)
    if number == 0:
        print("started", flush=True)
"""


def test_a_file_is_made_and_replaced(tmp_path):
    path = tmp_path / "a.txt"
    assert write_text(path, "one") == path and path.read_text() == "one"
    write_text(path, "two")
    assert path.read_text() == "two" and list(tmp_path.iterdir()) == [path]
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("place", ["missing/a.txt", "folder", "file/a.txt"])
def test_a_failure_names_the_path_and_leaves_nothing(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=place):
        write_bytes(tmp_path / place, b"1")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_full_disk_names_the_path_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"a\.bin"):
            write_bytes(path, b"0" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    (tmp_path / ".a.bin.new").write_bytes(b"left")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has files without a name")
def test_a_process_that_is_killed_leaves_whole_files_alone(tmp_path):
    try:
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_WRONLY))
    except OSError:
        pytest.skip("the file system has no files without a name")
    rng = random.Random(0)
    for number in range(10):
        folder = tmp_path / str(number)
        folder.mkdir()
        command = [sys.executable, "-c", WRITER, str(folder), atomic.__file__]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None and process.stdout.readline() == "started\n"
        time.sleep(rng.uniform(0, 0.03))
        process.kill()
        process.wait()
    files = list(tmp_path.glob("*/*"))
    assert len(files) > 10 and all(path.suffix == ".bin" and path.name[0] != "." for path in files)
    for path in files:
        data = path.read_bytes()
        assert len(data) == 500_000 and len(set(data)) == 1
