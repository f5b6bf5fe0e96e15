"""The files of other projects that a site carries, at pinned versions: ONNX Runtime Web, and a tokenizer.

`tools/web/vendor.py` copies them from npm; vendor/versions.json says what they are.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "vendor"
RUNTIME = "ort-wasm-simd-threaded.wasm"
_TOKENIZER = "@huggingface/tokenizers"


def versions() -> dict[str, dict[str, Any]]:
    """Return package, version, licence, size and SHA-256 of every file, by its name."""
    found: dict[str, dict[str, Any]] = json.loads((FOLDER / "versions.json").read_text(encoding="utf-8"))[
        "files"
    ]
    return found


def vendored(*, tokenizer: bool) -> Iterator[tuple[str, bytes]]:
    """Yield (name, content) of the files of a site. tokenizer: with those of text models.

    Raises OSError where a file of the installation is missing or damaged.
    """
    for name, entry in versions().items():
        if entry["package"] == _TOKENIZER and not tokenizer:
            continue
        path = FOLDER / (f"{name}.gz" if entry["gzip"] else name)
        content = path.read_bytes()
        content = gzip.decompress(content) if entry["gzip"] else content
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            raise OSError(f"{path}: not the file that was installed. Fix: install onnxplain again")
        yield name, content
