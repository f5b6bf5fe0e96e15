"""Attacks by files: each creates a marker file in the folder of its test."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from converters import UntrustedModel, convert

X = np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 4)


def attempt(path: Path, marker: Path, *, works: bool = True) -> None:
    """Convert a hostile file: it is refused and leaves no marker; with trust, the attack leaves one."""
    marker.unlink(missing_ok=True)
    with pytest.raises(
        UntrustedModel, match=r"Fix: if you trust .* trust=True\), or pass --trust"
    ) as refused:
        convert(path)
    assert str(path) in str(refused.value) and "\n" not in str(refused.value)
    assert not marker.exists()
    if works:
        with suppress(Exception):  # What follows the attack may fail.
            convert(path, trust=True)
        assert marker.exists()


def rewritten(program: Path, target: Path, part: str, change: Callable[[bytes], bytes]) -> None:
    """Copy an archive, with the members whose name contains `part` changed."""
    with zipfile.ZipFile(program) as source, zipfile.ZipFile(target, "w") as copy:
        assert any(part in name for name in source.namelist())
        for name in source.namelist():
            content = source.read(name)
            copy.writestr(name, change(content) if part in name else content)
