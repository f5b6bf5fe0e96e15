"""Say before the work what would fail after it: a place that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

from analyzer.cli.terminal import UserError


def refuse_other_than_onnx(output: Path) -> None:
    """Raise UserError where `output` cannot be an .onnx file to write."""
    if output.is_dir():
        raise UserError(
            f"{output}: a folder, where -o takes the .onnx file to write. Fix: give -o a path that ends in .onnx"
        )
    if output.suffix.lower() != ".onnx":
        raise UserError(
            f"{output}: expected the name of an .onnx file. Fix: give -o a path that ends in .onnx"
        )
    if not output.parent.is_dir():
        raise UserError(
            f"{output.parent}: no such folder. Fix: make it first, or give -o a path in another folder"
        )
    refuse_unwritable(output)


def refuse_unwritable(path: Path) -> None:
    """Raise UserError where a file cannot be written at `path`, or a folder not made there."""
    folder = path if path.is_dir() else path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{path}: the folder {folder} cannot be written. Fix: choose another")
