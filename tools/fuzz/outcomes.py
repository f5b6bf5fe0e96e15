"""Run one command on one file in a forked child of a warm process, and say how it ended."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from analyzer.cli import main
from converters.system.processes import resident_bytes

SECONDS, BYTES = 20.0, 2 * 2**30
GOOD = ("answer", "refused", "check failed")


@dataclass(frozen=True)
class Outcome:
    """How a command ended, and its last line. kind: one of GOOD, a crash with its signal, "hang", "memory",
    "internal error" or "unclear".
    """

    kind: str
    line: str
    seconds: float

    @property
    def good(self) -> bool:
        """Whether the command answered, or refused in one line."""
        return self.kind in GOOD


def warm() -> None:
    """Import the modules that a child would import. A first child names them: only it starts the runtime's threads."""
    with tempfile.TemporaryDirectory() as folder:
        names = Path(folder) / "names.json"
        child = os.fork()
        if not child:
            _name_modules(Path(folder), names)
        os.waitpid(child, 0)
        for name in json.loads(names.read_text()):
            # Some modules cannot be imported in another order, or are made by others.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _name_modules(folder: Path, names: Path) -> None:
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
        # A Cast of opset 17 is brought to the canonical opset by the libraries that do that.
        nodes = [
            helper.make_node("Cast", ["x"], ["c"], to=TensorProto.FLOAT),
            helper.make_node("Relu", ["c"], ["y"]),
        ]
        graph = helper.make_graph(nodes, "g", infos[:1], infos[1:])
        opset = helper.make_opsetid("", 17)
        onnx.save(helper.make_model(graph, opset_imports=[opset]), folder / "model.onnx")
        np.savez(folder / "inputs.npz", x=np.ones((2, 3), np.float32))
        main(["inspect", str(folder / "model.onnx")])
        main(["analyze", str(folder / "model.onnx"), str(folder / "inputs.npz")])
    finally:
        names.write_text(json.dumps([name for name in sys.modules if name != "__main__"]))
        os._exit(0)


def outcome(arguments: Sequence[str]) -> Outcome:
    """Run the command line in a child process, within the limits."""
    begun = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if not child:
            _run(arguments, out.fileno(), err.fileno())
        ended = _ended(child, begun)
        err.seek(0)
        errors = err.read().decode(errors="replace").splitlines()
    seconds = time.monotonic() - begun
    told = [line for line in errors if line.startswith("onnxplain: ")]
    line = told[-1] if told else (errors[-1] if errors else "")
    if isinstance(ended, str):
        return Outcome(ended, line, seconds)
    if any("internal error" in one for one in told) or any("Traceback" in one for one in errors):
        return Outcome("internal error", line, seconds)
    kind = {0: "answer", 1: "check failed", 2: "refused"}.get(ended, "unclear")
    return Outcome("unclear" if kind == "refused" and len(told) != 1 else kind, line, seconds)


def _run(arguments: Sequence[str], out: int, err: int) -> None:
    os.dup2(out, 1)
    os.dup2(err, 2)
    os.setpgid(0, 0)
    status = 70
    try:
        status = main(list(arguments))
        sys.stdout.flush()
    except BaseException as error:
        sys.stderr.flush()
        os.write(2, f"Traceback of {type(error).__name__}: {error}\n".encode())
    finally:
        sys.stderr.flush()
        os._exit(status)


def _ended(child: int, begun: float) -> int | str:
    """The exit status of the child, or what it was killed for."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _plain(status)
        reason = (
            "hang"
            if time.monotonic() - begun > SECONDS
            else "memory"
            if resident_bytes(child) > BYTES
            else ""
        )
        if reason:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return reason
        time.sleep(0.02)


def _plain(status: int) -> int | str:
    code = os.waitstatus_to_exitcode(status)
    return f"crash {signal.Signals(-code).name}" if code < 0 else code
