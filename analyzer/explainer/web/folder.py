"""Write a folder of files whole or not at all, in place of an earlier one of the same kind.

The files go to a new folder next to the destination, which is then renamed. A folder counts as an earlier one where a
list in it, {"files": […]} in JSON, names everything that it holds. Raises ExportError for any other folder that is not
empty, OSError.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from analyzer.errors import ExportError

_MARK = "onnxplain_site"


def refuse_other_folder(place: Path, listing: str) -> None:
    """Raise ExportError where `place` holds anything that an earlier site did not write. listing: its list of files."""
    if place.exists() and not place.is_dir():
        raise ExportError(f"{place}: a file, where a folder is expected. Fix: give a folder that is new")
    if not place.parent.is_dir():
        raise ExportError(
            f"{place.parent}: no such folder. Fix: make it first, or give a folder in another place"
        )
    if not place.is_dir():
        return
    if place == Path.cwd().resolve():
        raise ExportError(
            f"{place}: the folder is replaced as a whole, and it is the current one. Fix: give a new folder in it"
        )
    held = {path.relative_to(place).as_posix() for path in place.rglob("*") if not path.is_dir()}
    strangers = sorted(held - _written(place / listing))
    if strangers:
        raise ExportError(
            f"{place}: expected a new folder or an earlier site, found {strangers[0]!r} in it. Fix: give a new folder"
        )


def replace_folder(place: Path, files: Mapping[str, bytes], listing: str) -> None:
    """Write the files into `place`. Raises ExportError where it holds anything that an earlier site did not write."""
    refuse_other_folder(place, listing)
    new = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    old = place.with_name(f"{new.name}-old")
    try:
        for name, content in files.items():
            path = new / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        if place.exists():
            place.rename(old)
        try:
            new.rename(place)
        except BaseException:
            if old.exists():
                old.rename(place)
            raise
    finally:
        for folder in (new, old):
            with suppress(OSError):
                shutil.rmtree(folder)


def _written(path: Path) -> set[str]:
    """Return the files that an earlier site lists; none where there is no list."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return set()
    files = content.get("files") if isinstance(content, dict) and _MARK in content else None
    return {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()
