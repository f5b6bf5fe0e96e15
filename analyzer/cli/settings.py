"""What a gate allows: tolerances, backends, steps and the referee, from pyproject.toml and the command line.

`[tool.onnxplain]` of the nearest pyproject.toml that has it, upward from the working folder, goes over the defaults,
and the command line over both. Refuses keys and quantities that there are not, and values of another kind.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analyzer.checks.tolerances import tolerances
from analyzer.cli.terminal import UserError
from analyzer.errors import AnalysisError

SECTION = "tool.onnxplain"


@dataclass(frozen=True)
class ProjectSettings:
    """A project's own; None where it says nothing.

    tolerances: a number for every quantity, or {quantity: number}. path: the file that they come from.
    """

    tolerances: float | Mapping[str, float] | None = None
    backends: tuple[str, ...] | None = None
    steps: int | None = None
    referee: bool | None = None
    path: Path | None = None


def read_settings(folder: Path) -> ProjectSettings:
    """The settings that hold in a folder. Raises UserError, naming the file and the key."""
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if path.is_file() and (table := _section(path)) is not None:
            return _checked(table, path)
    return ProjectSettings()


def allowed(given: Sequence[str], settings: ProjectSettings) -> dict[str, float]:
    """{quantity: tolerance} of --tolerance NUMBER and --tolerance QUANTITY=NUMBER over the project's own.

    A number stands for every quantity that is compared, wherever it is given; a quantity that is named goes over it.
    """
    found = tolerances(settings.tolerances)
    # Stable: among numbers, and among named ones, the last goes over those before it.
    for text in sorted(given, key=lambda text: "=" in text):
        quantity, named, number = text.rpartition("=")
        try:
            value = float(number)
        except ValueError as error:
            raise UserError(
                f"--tolerance {text}: expected a number. Fix: give a number, or QUANTITY=NUMBER, as in layer=1e-5"
            ) from error
        try:
            found = tolerances({quantity.strip(): value} if named else value, found)
        except AnalysisError as error:
            raise UserError(f"--tolerance {text}: {error}") from error
    return found


def tolerances_from(given: Sequence[str], settings: ProjectSettings) -> str:
    """Where the tolerances come from, in a phrase; empty where they are the defaults."""
    places = [f"--tolerance {text}" for text in given]
    if settings.tolerances is not None:
        places.append(f"{SECTION}.tolerances of {settings.path}")
    return ", then ".join(places)


def _section(path: Path) -> Mapping[str, Any] | None:
    """The table [tool.onnxplain] of a file, None where there is none."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: no readable TOML ({error}). Fix: correct the file there, or run in another folder"
        ) from error
    table = content.get("tool", {})
    found = table.get("onnxplain") if isinstance(table, dict) else None
    if found is not None and not isinstance(found, dict):
        raise UserError(
            f"{path}: {SECTION} is a table, not {found!r}. Fix: write [{SECTION}], and one KEY = VALUE a line under it"
        )
    return found


def _checked(table: Mapping[str, Any], path: Path) -> ProjectSettings:
    unknown = [key for key in table if key not in _KINDS]
    if unknown:
        raise UserError(
            f"{path}: no {SECTION}.{unknown[0]} exists. Fix: remove it, or choose from {', '.join(_KINDS)}"
        )
    for key, value in table.items():
        fits, wanted = _KINDS[key]
        if not fits(value):
            raise UserError(
                f"{path}: expected {SECTION}.{key} to be {wanted}, got {value!r}. Fix: correct this line of the file"
            )
    if "tolerances" in table:
        try:
            tolerances(table["tolerances"])
        except AnalysisError as error:
            raise UserError(f"{path}: {SECTION}.tolerances: {error}") from error
    given = dict(table)
    if "backends" in given:
        given["backends"] = tuple(given["backends"])
    return ProjectSettings(**given, path=path)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_names(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    "tolerances": (lambda value: isinstance(value, dict) or _is_number(value), "a number or a table of them"),
    "backends": (_is_names, "a list of names"),
    "steps": (_is_count, "a whole number above 0"),
    "referee": (lambda value: isinstance(value, bool), "true or false"),
}
