"""Measure a data set against the API: `python -m benchmarks.dataset [--model lite0.onnx] [--write docs/benchmarks.md]`.

The first table has the images per second of `explain_dataset` on a folder of JPEG files, and of `full_grad` on full
batches that are in memory already, with medians of alternating calls. The second has the peak memory of a run over 500
and over 2,000 images, in separate processes.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter
from rich.console import Console

import onnxplain as ox
from benchmarks.gradient import alternate
from benchmarks.peak import growth
from benchmarks.results import Results, machine, write_section

VERSIONS = ("numpy", "onnxruntime", "pyarrow", "pillow")
SIZE = (320, 240)


def photographs(folder: Path, count: int, classes: int = 10) -> Path:
    """Write JPEG files of blurred noise, whose size is like that of photographs, into class folders."""
    rng = np.random.default_rng(0)
    for index in range(count):
        place = folder / f"class{index % classes}"
        place.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 256, (SIZE[1] // 8, SIZE[0] // 8, 3)).astype(np.uint8)
        picture = Image.fromarray(small).resize(SIZE, Image.Resampling.BICUBIC)
        picture.filter(ImageFilter.GaussianBlur(1)).save(place / f"{index:05d}.jpg", quality=90)
    return folder


def throughput(model: str, count: int, batch: int, rounds: int) -> list[str]:
    """Return images per second of the API and of a run, and their ratio."""
    fn = ox.differentiate(model, batch_size=batch)
    with tempfile.TemporaryDirectory() as name:
        folder = photographs(Path(name) / "photos", count)
        images = ox.load_images(sorted(folder.glob("*/*.jpg")), fn)
        runs = iter(range(rounds + 1))

        def api() -> None:
            for start in range(0, count, batch):
                ox.full_grad(fn, images[start : start + batch])

        def run() -> None:
            out = Path(name) / f"out{next(runs)}"
            assert len(ox.explain_dataset(fn, folder, out, batch_size=batch)) == count

        found = alternate({"API": api, "run": run}, rounds)
    rates = {name: count / seconds for name, seconds in found.items()}
    ratio = rates["run"] / rates["API"]
    return [f"{count} images, batch {batch}", f"{rates['API']:.2f}", f"{rates['run']:.2f}", f"{ratio:.2f}"]


def memory(model: str, count: int, batch: int) -> float:
    """Return the peak GiB of a run over so many images, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.dataset", "--model", model, "--peak", str(count)]
    done = subprocess.run(
        [*command, "--batch", str(batch)], capture_output=True, text=True, check=True, timeout=3600
    )
    return int(done.stdout.split()[-1]) / 2**30


def measured_peak(model: str, count: int, batch: int) -> int:
    """Return the peak bytes of a run, in addition to the memory before it."""
    with tempfile.TemporaryDirectory() as name:
        folder = photographs(Path(name) / "photos", count)
        out = Path(name) / "out"
        return growth(lambda: ox.explain_dataset(model, folder, out, "gradient", batch_size=batch))


def _demo_model() -> str:
    """EfficientNet-Lite0 as a file; needs the extra demo."""
    import torch

    from analyzer.demo import load_network

    path = Path(tempfile.mkdtemp()) / "lite0.onnx"
    half = (0.5, 0.5, 0.5)
    shown = ox.Preprocessing((224, 224), half, half)
    ox.convert(load_network().eval(), torch.zeros(1, 3, 224, 224), preprocessing=shown).save(path)
    return str(path)


def main() -> None:
    """Measure and show; write the page's section on request."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.dataset", description=__doc__)
    parser.add_argument("--model", help="an .onnx file with preprocessing; default EfficientNet-Lite0")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--counts", type=int, nargs="*", default=[500, 2000], help="images whose memory is measured"
    )
    parser.add_argument("--peak", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path)
    options = parser.parse_args()
    model = options.model or _demo_model()
    if options.peak:
        print(measured_peak(model, options.peak, options.batch))
        return
    of_model = functools.partial(throughput, model, options.images, options.batch)
    tables = [
        Results(
            "Images per second, FullGrad",
            ("", "`full_grad`, in memory", "`explain_dataset`, files", "ratio"),
            [of_model(options.rounds)],
        )
    ]
    if options.counts:
        rows = [[f"{one:,} images", f"{memory(model, one, options.batch):.2f} GiB"] for one in options.counts]
        tables.append(Results("Peak memory of a run, gradients", ("", "peak"), rows))
    for table in tables:
        Console(width=110).print(table.rich())
    if options.write:
        text = "\n\n".join(
            ["`python -m benchmarks.dataset --write docs/benchmarks.md`", *(t.markdown() for t in tables)]
        )
        write_section(options.write, "Data sets", f"{text}\n\n{machine(VERSIONS)}")


if __name__ == "__main__":
    main()
