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
        begun = time.monotonic()
        subprocess.run([*command, "-o", str(undisturbed)], check=True, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - begun
        print(f"undisturbed: {seconds:.1f} s, {options.images / seconds:.1f} images/s", flush=True)
        counts = []
        for _ in range(options.kills):
            # On average, the runs take twice the time of the whole together: some end before a part is complete.
            counts.append(
                _killed([*command, "-o", str(out)], rng.uniform(0, 4 * seconds / options.kills), out)
            )
        print(f"samples of complete parts after each kill: {counts}", flush=True)
        done = subprocess.run([*command, "-o", str(out)], stderr=subprocess.DEVNULL)
        faults = _faults(out, undisturbed, options.images)
    for fault in faults:
        print(fault)
    print(f"{options.kills} kills, status {done.returncode}, {len(faults)} faults")
    return 1 if faults or done.returncode else 0


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
