"""Say before the work what would fail after it: a place that cannot be written."""

from __future__ import annotations

import os
from pathlib import Path

from analyzer.cli.terminal import UserError


def refuse_unwritable(path: Path) -> None:
    """Raise UserError where a file cannot be written at `path`, or a folder not made there."""
    folder = path if path.is_dir() else path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{path}: the folder {folder} cannot be written. Fix: choose another")
