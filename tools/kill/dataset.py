"""`python -m tools.kill.dataset MODEL`: kill a run over a data set at random moments, then compare its results.

Starts `onnxplain run` again and again, and ends it with SIGKILL. One more run goes to the end. Exits 1 where its rows
differ from those of an undisturbed run in a bit, or where a sample is there twice or is missing.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import onnxplain as ox
from benchmarks.dataset import photographs


def main() -> int:
    """Run, print; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.kill.dataset", description=__doc__)
    parser.add_argument("model", help="an .onnx file that stores its preprocessing")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="full-grad")
    options, more = parser.parse_known_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory() as name:
        photos = photographs(Path(name) / "photos", options.images)
        out, undisturbed = Path(name) / "killed", Path(name) / "undisturbed"
        command = [
            *(sys.executable, "-m", "onnxplain", "run", options.model, str(photos)),
            *("--method", options.method, *more),
        ]
        start, seconds = _complete([*command, "-o", str(undisturbed)], undisturbed)
        rate = options.images / (seconds - start)
        print(f"undisturbed: {start:.1f} s to start, then {rate:.1f} images/s", flush=True)
        part = ox.open_results(undisturbed).manifest["part_size"] / rate
        counts = []
        for _ in range(options.kills):
            # Some runs end before the first part of theirs is complete, and some after it.
            moment = rng.uniform(0, start + 1.5 * part)
            counts.append(_killed([*command, "-o", str(out)], moment, out))
        print(f"samples of complete parts after each kill: {counts}", flush=True)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        status = subprocess.run([*command, "-o", str(out)], **quiet).returncode
        faults = _faults(out, undisturbed, options.images)
    for fault in faults:
        print(fault)
    print(f"{options.kills} kills, status {status}, {len(faults)} faults")
    return 1 if faults or status else 0


def _complete(command: list[str], out: Path) -> tuple[float, float]:
    """Run a command to its end; return the seconds until it begins to explain, and until its end."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (out / "manifest.json").exists():
        time.sleep(0.01)
    start = time.monotonic() - begun
    if process.wait():
        raise RuntimeError(f"expected status 0, got {process.returncode} from {' '.join(command)}")
    return start, time.monotonic() - begun


def _killed(command: list[str], moment: float, out: Path) -> int:
    """Start a command, kill all its processes at a moment, and return the samples of complete parts."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        process.wait(moment)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return ox.open_results(out).samples if (out / "manifest.json").exists() else 0


def _faults(out: Path, undisturbed: Path, count: int) -> list[str]:
    """The differences of two folders of results, part by part."""
    found = []
    names = [sorted(path.name for path in folder.iterdir()) for folder in (out, undisturbed)]
    if names[0] != names[1]:
        found.append(f"other files: {sorted({*names[0]} ^ {*names[1]})}")
    mine, theirs = ox.open_results(out), ox.open_results(undisturbed)
    positions = mine.table(["position"])["position"].to_pylist()
    if positions != list(range(count)):
        found.append(f"expected positions 0 to {count - 1} once each, found {len(positions)}")
    import pyarrow.parquet as pq

    for one, other in zip(mine.paths, theirs.paths, strict=False):
        if not pq.read_table(one).equals(pq.read_table(other)):
            found.append(f"{one.name}: other rows")
    return found


if __name__ == "__main__":
    sys.exit(main())
