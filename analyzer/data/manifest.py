"""The manifest of a job: what was explained how, and which columns the parts have.

One JSON file in the folder of the results, the same for all shards. A run continues only where its own manifest is the
same; the first difference is told.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from analyzer.errors import AnalysisError
from converters.system.atomic import put_in_place
from converters.system.plain_data import plain

NAME = "manifest.json"
FORMAT = 1
COMPARED = (
    "model",
    "method",
    "settings",
    "target",
    "backend",
    "attributions",
    "dtype",
    "source",
    "label",
    "column",
    "part_size",
    "batch_size",
    "shards",
    "versions",
)
"""The entries that the runs of one job share, in the order in which a difference is told."""
# Entries that say where things were, or what they were called.
_REMARKS = frozenset({"model.name", "source.path"})


class OtherJob(AnalysisError):
    """The folder holds results of another model, of other settings or of another source."""


def read(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a folder, None where there is none. Raises AnalysisError for another file of that name."""
    path = folder / NAME
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise AnalysisError(
            f"{path}: not a manifest of results ({error}). Fix: give another folder, or remove the file"
        ) from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or not set(COMPARED) <= set(found):
        raise AnalysisError(
            f"{path}: expected a manifest of results of format {FORMAT}. Fix: give another folder, or read the results "
            "with the release of onnxplain that wrote them"
        )
    return found


def write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest, whole or not at all."""
    temporary = folder / f".{NAME}.tmp"
    temporary.write_text(json.dumps(plain(manifest), indent=1), encoding="utf-8")
    put_in_place(temporary, folder / NAME)


def refuse_another(stored: Mapping[str, Any], wanted: Mapping[str, Any], folder: Path) -> None:
    """Raise OtherJob where a manifest is not that of this run, with the first difference."""
    wanted = json.loads(json.dumps(plain(wanted)))
    for name in COMPARED:
        for path, before, now in _differences(name, stored.get(name), wanted.get(name)):
            raise OtherJob(
                f"{folder}: holds results of another job: {path} is {_shown(before)} there, and {_shown(now)} in this "
                "run. Fix: give another folder, or replace the results with resume=False (--no-resume)"
            )


def job_of(manifest: Mapping[str, Any]) -> str:
    """Return a hash of all that the runs of a job share, which its parts carry."""
    stated = {name: _without_remarks(name, manifest[name]) for name in COMPARED}
    return hashlib.sha256(json.dumps(plain(stated), sort_keys=True).encode()).hexdigest()


def _without_remarks(path: str, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {key: one for key, one in value.items() if f"{path}.{key}" not in _REMARKS}


def _differences(path: str, before: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    if path in _REMARKS:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(f"{path}.{key}", before.get(key), now.get(key))
    elif before != now:
        yield path, before, now


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
