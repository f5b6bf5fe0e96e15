"""Run a command in a forked child, end it at a moment or not, and check the files that it leaves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
from PIL import Image

from analyzer.cli import guard
from tools.kill.commands import Command

LATE = 0.5
"""The share of the signals that come in the last third of a command, in which it writes."""


@dataclass(frozen=True)
class Complete:
    """A command that ran to its end: how long it took, and the files that it wrote."""

    command: Command
    seconds: float
    files: frozenset[str]


def complete(command: Command, folder: Path) -> Complete:
    """Run a command to its end. Raises RuntimeError where it fails, or leaves a file that is not whole."""
    out, temporary = _folders(folder, command)
    begun = time.monotonic()
    status = os.waitstatus_to_exitcode(os.waitpid(_started(command, out, temporary, folder), 0)[1])
    seconds = time.monotonic() - begun
    files = frozenset(_names(out))
    if status or not files or (found := faults(out, temporary, files)):
        raise RuntimeError(
            f"{command.name}: status {status}, {sorted(files)}, {found if files else 'no files'}"
        )
    return Complete(command, seconds, files)


def interrupted(
    done: Complete, sent: signal.Signals, folder: Path, rng: np.random.Generator
) -> tuple[str, list[str]]:
    """Send a signal at a random moment; return how the command ended, and the faults of what it left."""
    out, temporary = _folders(folder, done.command, empty=rng.random() < 0.5)
    child = _started(done.command, out, temporary, folder)
    time.sleep(done.seconds * (rng.uniform(0.6, 1.1) if rng.random() < LATE else rng.uniform(0, 1)))
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, sent)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    _wait_for_group(child)
    ended = "complete" if not status else f"status {status}"
    found = faults(out, temporary, done.files)
    if not status and frozenset(_names(out)) != done.files:
        found.append(f"complete, but without {sorted(done.files - frozenset(_names(out)))}")
    return ended, found


def _folders(folder: Path, command: Command, empty: bool = True) -> tuple[Path, Path]:
    """The folder that a command writes into, with the files of its last run where it is not to be empty."""
    out, temporary = folder / f"out-{command.name}", folder / "temporary"
    if empty:
        shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(temporary, ignore_errors=True)
    out.mkdir(exist_ok=True)
    temporary.mkdir()
    return out, temporary


def _started(command: Command, out: Path, temporary: Path, folder: Path) -> int:
    child = os.fork()
    if child:
        # Set on both sides: the parent may be the first to ask for the group.
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        return child
    status = 70
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        tempfile.tempdir = str(temporary)
        sys.argv = ["onnxplain", *command.writing_to(out)]
        status = guard.run()
        sys.stdout.flush()
    finally:
        os._exit(status)


def _wait_for_group(child: int) -> None:
    """Wait until the process that worked has ended as well. Raises TimeoutError after a minute."""
    for _ in range(6000):
        try:
            os.killpg(child, 0)
        except (ProcessLookupError, PermissionError):
            return
        time.sleep(0.01)
    raise TimeoutError(f"the processes of group {child} do not end")


def _names(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]


def faults(out: Path, temporary: Path, expected: frozenset[str]) -> list[str]:
    """What is wrong with the files: half written, or not of the command."""
    found = [f"left {name} in the folder for temporary files" for name in _names(temporary)]
    for name in _names(out):
        if name not in expected:
            found.append(f"left {name}")
            continue
        data = (out / name).read_bytes()
        try:
            _WHOLE[Path(name).suffix](data)
        except Exception as error:  # whatever a reader raises, the file is not whole
            found.append(f"{name} is not whole: {type(error).__name__}: {error}")
    return found


def _model(data: bytes) -> None:
    onnx.checker.check_model(onnx.load_model_from_string(data))


def _image(data: bytes) -> None:
    Image.open(io.BytesIO(data)).load()


def _page(data: bytes) -> None:
    if not data.decode().rstrip().endswith("</html>"):
        raise ValueError("the page does not end")


def _archive(data: bytes) -> None:
    if (damaged := zipfile.ZipFile(io.BytesIO(data)).testzip()) is not None:
        raise ValueError(f"{damaged} is damaged")


_WHOLE: dict[str, Callable[[bytes], object]] = {
    ".onnx": _model,
    ".png": _image,
    ".html": _page,
    ".npz": _archive,
    ".npy": lambda data: np.load(io.BytesIO(data)),
    ".json": json.loads,
    ".xml": ElementTree.fromstring,
}
