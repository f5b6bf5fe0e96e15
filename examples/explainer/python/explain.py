"""Explain inputs with an explainer file. Needs onnxruntime and numpy; Pillow to read photographs.

python explain.py explainer.onnx cat.jpg                   a file with preprocessing inside takes a photograph
python explain.py explainer.onnx x.npy --target 285        without, it takes the model's own input, (N, …)
python explain.py explainer.onnx ids=a.npy mask=b.npy      several inputs, each by its name

Prints the explained class of each sample, its output, and the share of it that the attribution misses. Writes each map
as an array, and the photograph under its heat map where the file has an overlay.
"""

from __future__ import annotations

import argparse
import json
import re
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

Arrays = dict[str, np.ndarray]


def read(path: Path) -> np.ndarray:
    """Return the array of a .npy file, or the uint8 pixels (1, height, width, 3) of a photograph."""
    if path.suffix == ".npy":
        return np.load(path)
    from PIL import Image, ImageOps

    with Image.open(path, formats=("JPEG", "PNG", "WEBP")) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))[None]


def default_of(described: dict[str, Any]) -> np.ndarray:
    """Return the default of an input: a number or a list that broadcasts to its shape."""
    shape = [size if isinstance(size, int) else 1 for size in described["shape"]]
    value = np.asarray(described["default"], described["type"])
    return value if value.ndim == len(shape) else np.broadcast_to(value, shape)


def fits(shape: tuple[int, ...], described: list[int | str]) -> bool:
    """Return whether an array has the axes of an input. Sizes that vary have names in the description."""
    pairs = zip(shape, described, strict=False)
    return len(shape) == len(described) and all(
        isinstance(fixed, str) or size == fixed for size, fixed in pairs
    )


def feeds_of(inputs: list[dict[str, Any]], given: Arrays) -> Arrays:
    """Return the arrays to feed. Inputs without an array keep their defaults."""
    if unknown := set(given) - {one["name"] for one in inputs}:
        raise SystemExit(f"expected the inputs {[one['name'] for one in inputs]}, found {sorted(unknown)}")
    feeds = {}
    for one in inputs:
        name = one["name"]
        if name in given:
            if not fits(given[name].shape, one["shape"]):
                fix = "export with --with-preprocessing to feed photographs, or give a .npy file"
                raise SystemExit(
                    f"expected {name!r} of shape {one['shape']}, found {given[name].shape}. Fix: {fix}"
                )
            feeds[name] = given[name].astype(one["type"], copy=False)
        elif one["optional"]:
            continue  # the session has its default
        elif one["default"] is None:
            raise SystemExit(
                f"expected an array for the input {name!r}, found none. Fix: add {name}=FILE.npy"
            )
        else:
            feeds[name] = default_of(one)
    return feeds


def check_target(about: dict[str, Any], target: np.ndarray) -> None:
    """Refuse classes that the explained output does not have. The run would fail with a message of the runtime."""
    for shape in [one["shape"][1:] for one in about["outputs"] if one["explains"]]:
        if (
            all(isinstance(size, int) for size in shape)
            and not ((target >= -1) & (target < np.prod(shape))).all()
        ):
            most = int(np.prod(shape)) - 1
            raise SystemExit(
                f"expected targets from 0 to {most}, or -1 for the highest, found {target.tolist()}"
            )


def class_names(about: dict[str, Any], metadata: dict[str, str]) -> list[str]:
    """Return the names of the classes; [] where the explained output is not one score for each of them."""
    names = [str(name) for name in json.loads(metadata.get("onnxplain.class_names", "[]"))]
    shapes = [one["shape"][1:] for one in about["outputs"] if one["explains"]]
    # A file is untrusted: control characters do not reach the terminal.
    return ["".join(filter(str.isprintable, name)) for name in names] if shapes == [[len(names)]] else []


def explain(explainer: str, given: Arrays) -> tuple[dict[str, Any], Arrays]:
    """Return the description of an explainer, and its outputs. given: {input name: array}."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # inputs with a default are meant to be so
    session = onnxruntime.InferenceSession(explainer, options, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    if "onnxplain.explainer" not in metadata:
        raise SystemExit(f"expected a file of `onnxplain export`, found {explainer} without its description")
    about = json.loads(metadata["onnxplain.explainer"])
    about["class_names"] = class_names(about, metadata)
    if None in given:  # an array without a name is of the first input of the model
        first = next(one["name"] for one in about["inputs"] if one["role"] in ("image", "model"))
        given = {first if name is None else name: array for name, array in given.items()}
    feeds = feeds_of(about["inputs"], given)
    if "target" in feeds:
        check_target(about, feeds["target"])
    names = [one.name for one in session.get_outputs()]
    return about, dict(zip(names, session.run(names, feeds), strict=True))


def by_role(about: dict[str, Any], found: Arrays, role: str) -> Arrays:
    """Return the outputs of one role, by their names."""
    return {one["name"]: found[one["name"]] for one in about["outputs"] if one["role"] == role}


def shortfall(about: dict[str, Any], found: Arrays) -> np.ndarray | None:
    """Return the share (N,) of its goal that the sum of each attribution misses; None for methods without a goal."""
    for error in by_role(about, found, "completeness_error").values():
        return error
    for delta in by_role(about, found, "delta").values():
        (first, *_) = by_role(about, found, "attribution").values()
        goal = (
            sum(one.reshape(len(first), -1).sum(1) for one in by_role(about, found, "attribution").values())
            - delta
        )
        return np.abs(delta) / np.maximum(np.abs(goal), np.finfo(np.float32).tiny)
    return None


def lines(about: dict[str, Any], found: Arrays) -> list[str]:
    """Return a line for each sample: its class, the explained output, and its completeness."""
    (output,) = by_role(about, found, "explained").values()
    classes, names = by_role(about, found, "explained_target"), about["class_names"]
    errors, written = shortfall(about, found), []
    for sample, value in enumerate(output):
        line = f"sample {sample}: "
        for explained in classes.values():
            index = int(explained[sample])
            line += f"class {index}{f' ({names[index]})' if index < len(names) else ''}, "
        line += f"output {value:.6g}"
        written.append(line if errors is None else f"{line}, completeness error {errors[sample]:.1e}")
    return written


def write_png(path: Path, rgb: np.ndarray) -> None:
    """Write uint8 pixels (height, width, 3)."""
    height, width, _ = rgb.shape
    rows = b"".join(b"\0" + row.tobytes() for row in rgb)
    parts = {
        b"IHDR": struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(rows),
        b"IEND": b"",
    }
    chunks = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts.items()
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def blend(image: np.ndarray, overlay: np.ndarray) -> np.ndarray:
    """Return the pixels of an image under an RGBA overlay of its own size."""
    alpha = overlay[..., 3:] / 255
    return np.round(image * (1 - alpha) + overlay[..., :3] * alpha).astype(np.uint8)


def write(about: dict[str, Any], found: Arrays, given: Arrays, folder: Path) -> list[Path]:
    """Write every map as `NAME.npy`, and a picture for each sample that has an overlay."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for role in ("map", "complete_map"):
        for name, array in by_role(about, found, role).items():
            paths.append(folder / f"{re.sub(r'[^A-Za-z0-9.-]', '_', name)}.npy")
            np.save(paths[-1], array)
    for overlays in by_role(about, found, "overlay").values():
        (images,) = given.values()
        for sample, (image, overlay) in enumerate(zip(images, overlays, strict=True)):
            paths.append(folder / f"explained_{sample}.png")
            write_png(paths[-1], blend(image, overlay))
    return paths


def main(arguments: list[str] | None = None) -> None:
    """Read the arguments, explain, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("explainer")
    parser.add_argument("inputs", nargs="+", metavar="[NAME=]FILE")
    parser.add_argument("--target", type=int, help="class to explain; default: the default of the file")
    parser.add_argument("-o", "--out", type=Path, default=Path(), help="folder for the maps")
    options = parser.parse_args(arguments)
    given: Any = {}
    for argument in options.inputs:
        name, _, path = argument.rpartition("=")
        given[name or None] = read(Path(path))
    images = {name: array for name, array in given.items() if array.dtype == np.uint8 and array.ndim == 4}
    if options.target is not None:
        given["target"] = np.array([options.target], np.int64)
    about, found = explain(options.explainer, given)
    print("\n".join(lines(about, found)))
    for path in write(about, found, images, options.out):
        print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
