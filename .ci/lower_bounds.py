"""Print the oldest versions that pyproject.toml allows for the core, as constraints of pip: numpy==2.0, and so on.

A dependency without a lower bound is an error: nothing would then say which versions work.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lower_bounds(path: Path = PYPROJECT) -> list[str]:
    """Return one constraint for each dependency of the core."""
    found = []
    for dependency in tomllib.loads(path.read_text(encoding="utf-8"))["project"]["dependencies"]:
        bound = re.fullmatch(r"([\w.-]+)>=([\d.]+)", dependency)
        if bound is None:
            raise SystemExit(
                f"{path}: expected {dependency!r} as NAME>=VERSION. Fix: state the oldest version"
            )
        found.append(f"{bound[1]}=={bound[2]}")
    return found


if __name__ == "__main__":
    print("\n".join(lower_bounds()))
