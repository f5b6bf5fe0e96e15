"""Write a kernel table: which ops, of which opsets and types, a build of ONNX Runtime has kernels for.

    python -m tools.kernels cpu       from the installed onnxruntime: tables/cpu.json
    python -m tools.kernels jsep FILE from docs/webgpu-operators.md of the npm package: tables/jsep.json
    python -m tools.kernels webgpu    by trying, from the installed onnxruntime-webgpu: tables/webgpu.json

The last one makes a session of thousands of models of one node and reads where the node was placed. It needs a Vulkan
device; SwiftShader, which comes with Chromium, is one: set VK_ICD_FILENAMES to its vk_swiftshader_icd.json.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from tools.kernels.placement import placements

TABLES = Path(__file__).parents[2] / "analyzer" / "explainer" / "runtimes" / "tables"
# Explainers are of this opset at least.
OLDEST = 17
_OPEN = 2**31 - 1
_RANGE = re.compile(r"ai\.onnx\(([^)]*)\)")


def cpu() -> dict[str, Any]:
    """Return the table of the CPU kernels, as {op: [[first opset, last or null, {type parameter: types}], …]}."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    kernels: dict[str, list[Any]] = defaultdict(list)
    for kernel in state.get_all_opkernel_def():
        first, last = kernel.version_range
        if kernel.provider != "CPUExecutionProvider" or kernel.domain or last < _since(kernel.op_name):
            continue
        types = {name: sorted(map(_short, kinds)) for name, kinds in sorted(kernel.type_constraints.items())}
        kernels[kernel.op_name].append([first, None if last == _OPEN else last, types])
    source = "get_all_opkernel_def() of the Python package, built from the same sources"
    return _table(onnxruntime.__version__, source, {op: _merged(entries) for op, entries in kernels.items()})


def _merged(entries: list[Any]) -> list[Any]:
    """Make one entry of those that differ in the types of their only parameter."""
    found: dict[str, Any] = {}
    for first, last, types in entries:
        key = json.dumps([first, last, list(types)] if len(types) == 1 else [first, last, types])
        if key in found:
            for name, kinds in types.items():
                found[key][2][name] = sorted({*found[key][2][name], *kinds})
        else:
            found[key] = [first, last, types]
    return list(found.values())


def jsep(text: str, version: str) -> dict[str, Any]:
    """Return the table of the older WebGPU kernels from the page that is published with the npm package."""
    kernels: dict[str, list[Any]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        found = _RANGE.search(cells[2]) if len(cells) > 2 else None
        if found is None:
            continue
        ranges = []
        for part in found.group(1).split(","):
            first, _, last = part.rstrip("+").partition("-")
            ranges.append([int(first), None if part.endswith("+") else int(last or first), {}])
        kernels[cells[1]] = [one for one in ranges if one[1] is None or one[1] >= _since(cells[1])]
    return _table(version, "docs/webgpu-operators.md of the npm package onnxruntime-web", kernels)


def webgpu() -> dict[str, Any]:
    """Return the table of the WebGPU provider, as {op: [[opset, opset, {"": pairs of input and output type}], …]}."""
    found: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
    for op_type, since, pair, on_gpu in placements():
        if on_gpu:
            found[op_type][since].add(pair)
    kernels = {
        op_type: [[since, since, {"": sorted(pairs)}] for since, pairs in sorted(versions.items())]
        for op_type, versions in sorted(found.items())
    }
    source = "placement of single nodes by the Python package onnxruntime-webgpu"
    return _table(onnxruntime.__version__, source, kernels)


def _table(version: str, source: str, kernels: dict[str, list[Any]]) -> dict[str, Any]:
    ordered = {op_type: sorted(kernels[op_type], key=str) for op_type in sorted(kernels) if kernels[op_type]}
    return {"version": version, "source": source, "kernels": ordered}


def _since(op_type: str) -> int:
    """The version of an op that models of the oldest opset use."""
    try:
        return int(onnx.defs.get_schema(op_type, OLDEST).since_version)
    except onnx.defs.SchemaError:
        return OLDEST


def _short(kind: str) -> str:
    return kind.removeprefix("tensor(").removesuffix(")") if kind.startswith("tensor(") else kind


def _text(table: dict[str, Any]) -> str:
    """One op a line, so that a new version is a short diff."""
    head = {key: value for key, value in table.items() if key != "kernels"}
    lines = [f" {json.dumps(op)}: {json.dumps(entries)}" for op, entries in table["kernels"].items()]
    return json.dumps(head)[:-1] + ', "kernels": {\n' + ",\n".join(lines) + "\n}}\n"


def main() -> None:
    """Write the table that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m tools.kernels", description=__doc__)
    parser.add_argument("kind", choices=("cpu", "jsep", "webgpu"))
    parser.add_argument("page", nargs="?", type=Path, help="webgpu-operators.md of the npm package")
    parser.add_argument("--package-version", default="", help="version of the npm package")
    given = parser.parse_args()
    if given.kind == "jsep":
        table = jsep(given.page.read_text(), given.package_version)
    else:
        table = cpu() if given.kind == "cpu" else webgpu()
    (TABLES / f"{given.kind}.json").write_text(_text(table))
    print(f"{TABLES / given.kind}.json: {len(table['kernels'])} ops of version {table['version']}")


if __name__ == "__main__":
    main()
