"""`python -m tools.fuzz`: damage the models of the standard's node tests and read them with `inspect` and `analyze`.

Counts how the commands end. A file that crashes, hangs, takes too much memory or ends in an internal error is kept in
the folder `--keep`, and can be run again with `--replay`. Exits 1 where there is one.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

from tools.fuzz.mutants import mutant
from tools.fuzz.outcomes import Outcome, outcome, warm
from tools.fuzz.seeds import networks, node_tests


def main() -> int:
    """Run, print; the exit status."""
    options = _parser().parse_args()
    if options.replay is not None:
        return _replay(options.replay)
    counts, bad = _search(options)
    for (command, kind), number in sorted(counts.items()):
        print(f"{command:8} {kind:16} {number:6}")
    return 1 if bad else 0


def _replay(place: Path) -> int:
    """Read a file, or the .onnx files of a folder, again; the exit status."""
    warm()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(place.glob("*.onnx")) if place.is_dir() else [place]:
            for command, one in _read(path, Path(folder)):
                bad += not one.good
                print(f"{path.name}: {command}: {one.kind}, {one.seconds:.1f} s: {one.line}", flush=True)
    return 1 if bad else 0


def _search(options: argparse.Namespace) -> tuple[collections.Counter[tuple[str, str]], int]:
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    node_tests(), networks()
    warm()
    begun, bad, number = time.monotonic(), 0, options.first
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        while number < options.first + options.files and time.monotonic() - begun < 60 * options.minutes:
            data = mutant(np.random.default_rng([options.seed, number]))
            path.write_bytes(data)
            for command, one in _read(path, Path(folder)):
                counts[command, one.kind] += 1
                if not one.good:
                    bad += 1
                    kept = options.keep / f"{options.seed}-{number}-{command}.onnx"
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    kept.write_bytes(data)
                    print(f"{one.kind}: {kept}: {one.line[:300]}", flush=True)
            number += 1
            if number % 100 == 0:
                print(f"{number} files in {time.monotonic() - begun:.0f} s, {bad} bad", flush=True)
    return counts, bad


def _read(path: Path, folder: Path) -> list[tuple[str, Outcome]]:
    """The outcome of `inspect`, and where it answers, of `analyze` on ordinary inputs."""
    found = [("inspect", outcome(["inspect", str(path)]))]
    if found[0][1].kind == "answer" and (inputs := _inputs(path)) is not None:
        np.savez(folder / "inputs.npz", **inputs)  # type: ignore[arg-type]
        found.append(("analyze", outcome(["analyze", str(path), str(folder / "inputs.npz")])))
    return found


def _inputs(path: Path) -> dict[str, np.ndarray] | None:
    """Noise of the stated shapes; None where they are too large, or no arrays."""
    graph, rng = onnx.load_model(path, load_external_data=False).graph, np.random.default_rng(0)
    constants = {tensor.name for tensor in graph.initializer}
    found: dict[str, np.ndarray] = {}
    for info in graph.input:
        if info.name in constants:
            continue
        sizes = [dim.dim_value if dim.HasField("dim_value") else 2 for dim in info.type.tensor_type.shape.dim]
        try:
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
        except (KeyError, TypeError):
            return None
        if dtype.kind not in "fiub" or min(sizes, default=0) < 0 or np.prod(sizes, dtype=np.float64) > 1e6:
            return None
        found[info.name] = (rng.standard_normal(sizes) * 3).astype(dtype)
    return found or None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long to search")
    parser.add_argument("--files", type=int, default=sys.maxsize, help="how many files at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first file, to go on after a search"
    )
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-failures"), help="folder of the files that fail"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run a file again, or all of a folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
