"""Images, arrays and metadata of a stranger are bounded before they are read: one line, exit status 2, no memory."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import EpsImagePlugin, Image

from analyzer.figures.images import preprocess, read_image
from converters import ConversionError, InvalidModel, Preprocessing, load, set_metadata
from converters.model import PREPROCESSING_KEY
from tests.analyzer.cli.conftest import classifier

EPS = """%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
{code}
showpage
%%EOF
"""


def png(width: int, height: int) -> bytes:
    """A PNG that states its size, and holds one row."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = zlib.compress(b"\0" * ((width + 7) // 8 + 1))
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def npy(shape: str, data: bytes = b"", descr: str = "<f4") -> bytes:
    """A .npy file with a header as given."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def npz(*members: tuple[str, bytes]) -> bytes:
    """An archive of files as given."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def _encrypted() -> bytes:
    content = bytearray(npz(("a.npy", npy("(3,)", bytes(12)))))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    return bytes(content)


def _stating(size: int) -> bytes:
    content = bytearray(npz(("a.npy", npy("(3,)", bytes(12)))))
    place = content.index(b"PK\x01\x02") + 24
    content[place : place + 4] = struct.pack("<I", size)
    return bytes(content)


def _method(number: int) -> bytes:
    content = bytearray(npz(("a.npy", npy("(3,)", bytes(12)))))
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(mark) + place] = number
    return bytes(content)


FILES = {
    "in the range of Pillow's warning": ("warned.png", lambda: png(10_000, 10_000), "at most 89478485 pixels"),
    "more pixels than Pillow reads": ("bomb.png", lambda: png(20_000, 20_000), "not a readable image"),
    "EPS": ("eps.png", lambda: EPS.format(code="0 0 8 8 rectfill").encode(), "Fix: convert it to one of"),
    "an endless EPS": ("loop.png", lambda: EPS.format(code="{ } loop").encode(), "Fix: convert it to one of"),
    "a header of 4 TB": ("huge.npy", lambda: npy("(1000000, 1000000)"), "states 4000000000000 bytes, and 0 follow"),
    "a header of no bytes each": ("of_no_bytes.npy", lambda: npy("(111111111111,)", descr="|S0"), "states"),
    "a negative shape": ("negative.npy", lambda: npy("(-1,)", bytes(4)), "negative.npy"),
    "a boolean shape": ("bool.npy", lambda: npy("(True,)", bytes(4)), "bool.npy"),
    "nested parentheses": ("paren.npy", lambda: npy("(" * 8_000 + ")" * 8_000), "paren.npy"),
    "an object": ("object.npy", lambda: npy("(1,)", bytes(8), "|O"), "holds pickled objects"),
    "an archive that expands": ("bomb.npz", lambda: _stating(2**30), "Fix: save it with np.savez"),
    "a member of 4 TB": ("claim.npz", lambda: npz(("a.npy", npy("(1000000, 1000000)"))), "and 0 follow"),
    "a member that is a text": ("text.npz", lambda: npz(("a.txt", b"text")), "expected .npy arrays"),
    "a password": ("locked.npz", _encrypted, "locked.npz"),
    "an unknown method": ("method.npz", lambda: _method(99), "method.npz"),
    "too many arrays": ("many.npz", lambda: npz(*((f"{k}.npy", b"") for k in range(10_001))), "at most 10000 arrays"),
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_bomb_is_refused_in_one_line(command, files: Path, case: str) -> None:
    name, make, expected = FILES[case]
    (files / name).write_bytes(make())
    status, out, err = command("analyze", "plain.onnx", name)
    assert (status, out) == (2, "")
    assert name in err and expected in err and err.count("\n") == 1


def test_an_eps_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would hand the file to Ghostscript, in whose place a function leaves a marker."""
    marker = tmp_path / "marker"

    def run(*arguments: object, **options: object) -> object:
        marker.touch()
        return Image.new("RGB", (8, 8)).im

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    (tmp_path / "photo.png").write_text(EPS.format(code="0 0 8 8 rectfill"))
    with pytest.raises(ValueError, match="not a readable image"):
        read_image(tmp_path / "photo.png")
    assert not marker.exists()
    with Image.open(tmp_path / "photo.png") as image:
        image.load()
    assert marker.exists()


def test_no_image_is_opened_without_a_list_of_formats() -> None:
    root = Path(__file__).parents[3]
    for folder in ("analyzer", "converters", "scripts", "docs", "examples", "benchmarks"):
        for path in (root / folder).rglob("*.py"):
            for line in path.read_text(encoding="utf-8").splitlines():
                assert "Image.open(" not in line or "formats=" in line, (path, line)


def test_the_first_image_of_several_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("white", "black", "black")]
    for suffix in ("gif", "png", "tiff", "webp"):
        path = tmp_path / f"frames.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        np.testing.assert_array_equal(read_image(path), 1)


@pytest.mark.parametrize("shape", [(1, 8000), (8000, 1), (3, 40_000)])
def test_an_extreme_photograph_is_cropped_before_it_is_resized(shape: tuple[int, int]) -> None:
    """A constant stays a constant; a ramp has the values of its middle."""
    ramp = np.linspace(0, 1, max(shape), dtype=np.float32).reshape(
        [1 if n == min(shape) else n for n in shape]
    )
    image = np.repeat(np.broadcast_to(ramp, shape)[..., None], 3, axis=-1)
    found = preprocess(image, Preprocessing((224, 224), (0.0,), (1.0,)))
    assert found.shape == (3, 224, 224)
    np.testing.assert_allclose(found, 0.5, atol=0.01)


def test_crop_first_gives_the_pixels_of_crop_last(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = np.meshgrid(np.linspace(0, 5, 61), np.linspace(0, 9, 97))
    image = np.stack([np.sin(x + y), np.cos(x * y / 3), x * y / 45], -1) / 2.2 + 0.5
    for size, resize in (((40, 50), None), ((40, 50), 75), ((150, 90), None), ((8, 8), 50), ((300, 2), None)):
        how = Preprocessing(size, (0.0,), (1.0,), "NHWC", resize)
        last = preprocess(image.astype(np.float32), how)
        with monkeypatch.context() as patch:
            patch.setattr("analyzer.images.preprocess._RESIZED_WHOLE", 0)
            first = preprocess(image.astype(np.float32), how)
        np.testing.assert_allclose(first, last, atol=1.01 / 255)


def test_an_image_of_too_many_pixels_after_resizing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"89478485 pixels after resizing.*Fix:"):
        preprocess(np.zeros((1, 1, 3), np.uint8), Preprocessing((16_000, 16_000)))


METADATA = {
    "no JSON": "nope",
    "no object": "[1, 2]",
    "nested": "[" * 100_000,
    "no size": '{"mean": [0]}',
    "an unknown field": '{"size": [8, 8], "code": 1}',
    "a huge size": '{"size": [60000, 60000]}',
    "a large area": '{"size": [8000, 8000]}',
    "a size of 0": '{"size": [0, 8]}',
    "a size of fractions": '{"size": [8.5, 8]}',
    "a text for a size": '{"size": "8"}',
    "a divisor of 0": '{"size": [8, 8], "std": [0]}',
    "a negative divisor": '{"size": [8, 8], "std": [-1, 1, 1]}',
    "an infinite divisor": '{"size": [8, 8], "std": [Infinity]}',
    "a mean that is NaN": '{"size": [8, 8], "mean": [NaN]}',
    "an integer of 400 digits": '{"size": [8, 8], "mean": [1' + "0" * 400 + "]}",
    "five means": '{"size": [8, 8], "mean": [0, 0, 0, 0, 0]}',
    "an unknown layout": '{"size": [8, 8], "layout": "CHWN"}',
    "a huge resize": '{"size": [8, 8], "resize": 1000000000}',
}


@pytest.mark.parametrize("case", METADATA)
def test_preprocessing_out_of_range_is_refused(case: str) -> None:
    proto = classifier()
    helper.set_model_props(proto, {PREPROCESSING_KEY: METADATA[case]})
    model = load(proto, verify=False)
    with pytest.raises(InvalidModel, match=r"Fix: convert the model ") as refused:
        _ = model.preprocessing
    assert "\n" not in str(refused.value)


def test_preprocessing_out_of_range_is_one_line_of_the_command(command, files: Path) -> None:
    proto = classifier()
    helper.set_model_props(proto, {PREPROCESSING_KEY: METADATA["a divisor of 0"]})
    onnx.save(proto, files / "divisor.onnx")
    status, out, err = command("analyze", "divisor.onnx", "photo.png")
    assert (status, out) == (2, "") and "expected std to be" in err and err.count("\n") == 1


def test_preprocessing_out_of_range_is_not_stored() -> None:
    with pytest.raises(ConversionError, match="expected std to be"):
        set_metadata(classifier(), Preprocessing((8, 8), std=(0.0,)))
    proto = classifier()
    stored = Preprocessing([8, 9], [0.5], (0.25,) * 3, "NHWC", 16)  # type: ignore[arg-type]
    set_metadata(proto, stored)
    assert load(proto, verify=False).preprocessing == Preprocessing((8, 9), (0.5,), (0.25,) * 3, "NHWC", 16)
    assert json.loads({entry.key: entry.value for entry in proto.metadata_props}[PREPROCESSING_KEY])[
        "size"
    ] == [8, 9]
