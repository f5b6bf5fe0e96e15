"""The gallery is drawn, and what it prints of each photograph adds up to the output."""

from __future__ import annotations

import importlib
import re

from PIL import Image

PRINTED = re.compile(r"(.+): (-?[\d.]+) in the map \+ (-?[\d.]+) apart = (-?[\d.]+), output (-?[\d.]+)")


def test_the_gallery_is_drawn_and_adds_up(tmp_path, capsys):
    gallery = importlib.import_module("02_gallery")
    assert gallery.main(["-o", str(tmp_path / "gallery.png"), "--samples", "1"]) == 0
    found = PRINTED.findall(capsys.readouterr().out)
    assert [name for name, *_ in found] == ["tiger cat", "espresso", "missile", "tripod"]
    for _, in_map, apart, total, output in found:
        assert abs(float(in_map) + float(apart) - float(total)) <= 2e-4
        assert abs(float(total) - float(output)) <= 1e-3
    with Image.open(tmp_path / "gallery.png") as picture:
        assert min(picture.size) > 800
