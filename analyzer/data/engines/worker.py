"""A process that explains batches: it reads them from its standard input and writes results to its standard output.

Started by `Worker` with a command of Python, so that the user's script is not run again, as multiprocessing would do.
Both ends exchange pickles: the parent an explainer and batches, the worker columns, warnings and errors. The worker
ends when its input ends, which it does however the parent ends.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from analyzer.errors import AnalysisError
from analyzer.types import Arrays
from converters.errors import one_line

# The first message is the path of modules, which the import of this module needs.
_START = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from analyzer.data.engines.worker import serve; serve()"
)
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
_GRACE = 5
"""Seconds that a worker has to end before it is killed."""


class WorkerEnded(Exception):
    """A worker ended before it had answered. The message tells how."""


class Worker:
    """A process that explains batches with one explainer. threads: of native libraries."""

    def __init__(self, explainer: bytes, threads: int) -> None:
        options: dict[str, Any] = {"process_group": 0}
        if os.name == "nt":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}  # type: ignore[attr-defined]
        # Ctrl-C goes to the group in the foreground: the parent decides when a worker ends.
        process: Any = subprocess.Popen(
            [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", _START],  # type: ignore[attr-defined]
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**dict.fromkeys(_THREADS, str(threads)), **os.environ},
            **options,
        )
        self._process: subprocess.Popen[bytes] = process
        self._send(sys.path)
        self._send(explainer)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def explain(self, batch: Mapping[str, Any]) -> tuple[Arrays, list[tuple[str, type[Warning]]]]:
        """Return the columns of a batch, and the warnings of the worker. Raises WorkerEnded, and what it raised."""
        self._send(batch)
        assert self._process.stdout is not None
        try:
            columns, noted, error = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError, OSError, ValueError) as failure:
            raise WorkerEnded(self._end()) from failure
        if error is not None:
            raise error
        return columns, noted

    def close(self) -> None:
        """End the process, whether it works or waits."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                stream.close()
            except OSError:
                continue

    def _send(self, message: Any) -> None:
        assert self._process.stdin is not None
        try:
            pickle.dump(message, self._process.stdin, protocol=5)
            self._process.stdin.flush()
        except (OSError, ValueError) as failure:
            raise WorkerEnded(self._end()) from failure

    def _end(self) -> str:
        """How the process ended."""
        try:
            status = self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            return "its pipe was closed"
        if status >= 0:
            return f"it ended with status {status}"
        try:
            return f"it was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"it was ended by signal {-status}"


def serve() -> None:
    """Explain the batches of standard input until it ends. Called in the worker."""
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    # What a library prints goes to standard error: standard output belongs to the results.
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    noted: list[tuple[str, type[Warning]]] = []

    def note(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        noted.append((str(message), category))

    warnings.showwarning = note
    warnings.simplefilter("always")
    explainer: Any = None
    while (message := _received(source)) is not None:
        noted.clear()
        columns, error = None, None
        try:
            if explainer is None:
                explainer = pickle.loads(message)
                continue
            columns = explainer(message)
        except Exception as failure:
            error = _portable(failure)
        try:
            pickle.dump((columns, list(noted), error), answers, protocol=5)
            answers.flush()
        except BrokenPipeError:
            os._exit(1)
    # Native threads may wait for one another at the end of a process.
    os._exit(0)


def _received(source: Any) -> Any:
    """The next message; None at the end of the input."""
    try:
        return pickle.load(source)
    except (EOFError, pickle.UnpicklingError):
        return None


def _portable(error: Exception) -> Exception:
    """The error in a form that the parent can read."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error may refuse to be pickled in any way
        return AnalysisError(f"{type(error).__name__}: {one_line(error)}")
    return error
