"""Copy the runtime and the tokenizer of the web page from their npm packages: `python -m tools.web.vendor`.

From the versions below to analyzer/explainer/web/vendor: the files that a site needs, their licences, and versions.json
with the version, the licence and the SHA-256 of every file. Large files are stored with gzip. Needs `npm`. The licence
and the notices of ONNX Runtime are not in its npm package: they come from the installed Python package.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "analyzer" / "explainer" / "web" / "vendor"
# By npm package: the version, its licence, and the files by their names here.
PACKAGES = {
    "onnxruntime-web": (
        "1.30.0",
        "MIT",
        {
            "ort.wasm.bundle.min.mjs": "package/dist/ort.wasm.bundle.min.mjs",
            "ort-wasm-simd-threaded.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
        },
    ),
    "@huggingface/tokenizers": (
        "0.2.0",
        "Apache-2.0",
        {
            "tokenizers.min.mjs": "package/dist/tokenizers.min.mjs",
            "tokenizers.LICENSE.txt": "package/LICENSE",
        },
    ),
}
RUNTIME_TEXTS = {
    "onnxruntime.LICENSE.txt": "LICENSE",
    "onnxruntime.ThirdPartyNotices.txt": "ThirdPartyNotices.txt",
}
# Files above this size are stored with gzip.
PLAIN = 200_000


def main() -> None:
    """Replace the vendored files, and write versions.json."""
    found: dict[str, dict[str, object]] = {}
    for package, (version, licence, files) in PACKAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            archive = _packed(package, version, Path(folder))
            contents = {name: _member(archive, path) for name, path in files.items()}
        if package == "onnxruntime-web":
            contents |= {name: _installed(path) for name, path in RUNTIME_TEXTS.items()}
        for name, content in contents.items():
            found[name] = {
                "package": package,
                "version": version,
                "licence": licence,
                **_stored(name, content),
            }
    text = json.dumps({"files": found}, indent=2, sort_keys=True)
    (VENDOR / "versions.json").write_text(text + "\n", encoding="utf-8")


def _packed(package: str, version: str, folder: Path) -> Path:
    command = ["npm", "pack", f"{package}@{version}", "--ignore-scripts", "--silent"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (archive,) = folder.glob("*.tgz")
    return archive


def _member(archive: Path, path: str) -> bytes:
    with tarfile.open(archive) as packed:
        member = packed.extractfile(path)
        assert member is not None, path
        return member.read()


def _installed(path: str) -> bytes:
    import onnxruntime

    return (Path(onnxruntime.__file__).parent / path).read_bytes()


def _stored(name: str, content: bytes) -> dict[str, object]:
    """Write a file, and return its entry."""
    plain, packed = VENDOR / name, VENDOR / f"{name}.gz"
    large = len(content) > PLAIN
    for path in (plain, packed):
        path.unlink(missing_ok=True)
    # Without a time, the same content gives the same file.
    (packed if large else plain).write_bytes(gzip.compress(content, 9, mtime=0) if large else content)
    return {"bytes": len(content), "gzip": large, "sha256": hashlib.sha256(content).hexdigest()}


if __name__ == "__main__":
    main()
