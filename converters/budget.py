"""Bound what preparing one model takes, as a whole: seconds, bytes of new constants, and new nodes.

`Limits` are what the caller allows; a `Budget` counts what one preparation has taken. `canonicalise` opens it, and each
step draws on it by `current()`: it lies in a context variable, since the steps are called through tables of rules with
one signature, up to ten calls deep, and a preparation inside another one must draw on the same budget. Threads have
their own. Runs of the model itself are not counted: they take what the model takes. Those that `load` makes on noise
are trials, which end when all of them have taken as many seconds; their question then stays open.

Defaults grow with the model, so that only files that ask for much more than they hold are refused. Measured on one
core: 0.4 ms a node, of 5 that are allowed. VGG-19 with its weights in ConstantOfShape nodes makes 548 MiB of constants,
of the 576 that a file without weights may make; they are held up to three times while the graph is written.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import onnx

from converters.errors import ConversionError, LimitExceeded
from converters.system.processes import resident_bytes
from converters.weights.references import size_of

SECONDS, SECONDS_PER_NODE, SECONDS_PER_BYTE = 10.0, 5e-3, 10 / 2**30
BYTES, BYTES_PER_BYTE = 576 * 2**20, 2
NODES = 100_000
_INTERVAL = 0.02
_FIXES = {
    "seconds": "limits=Limits(seconds={}) in Python, --limits seconds={} on the command line",
    "bytes": "limits=Limits(bytes={}) in Python, --limits bytes={} on the command line",
    "nodes": "limits=Limits(nodes={}) in Python, --limits nodes={} on the command line",
}


@dataclass(frozen=True)
class Limits:
    """What preparing a model may take; None: by the model's size.

    seconds: of the whole preparation. Default: 10, and 5 ms a node and 10 s a GiB of the file.
    bytes: of constants that the file does not hold, all together. Default: 576 MiB, and twice the bytes of the file.
    nodes: that functions, loops and ops are written out as. Default: 100,000.
    """

    seconds: float | None = None
    bytes: int | None = None
    nodes: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "bytes", "nodes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConversionError(
                    f"limits: expected {name} above 0, got {value}. Fix: give a number above 0, or None"
                )


class Clock:
    """Seconds since it was made: of the wall or of the processor, whichever are fewer.

    On a busy machine the processor's pass more slowly, and with several threads those of the wall.
    """

    def __init__(self) -> None:
        self._begun = _now()

    def elapsed(self) -> float:
        """Return the seconds that have passed."""
        return min(now - begun for now, begun in zip(_now(), self._begun, strict=True))

    def leave_out(self, other: Clock) -> None:
        """Take out the time since another clock was made."""
        spent = [now - begun for now, begun in zip(_now(), other._begun, strict=True)]
        self._begun = (self._begun[0] + spent[0], self._begun[1] + spent[1])


def _now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


class Budget:
    """What one preparation may still take."""

    def __init__(self, limits: Limits, nodes: int, size: int) -> None:
        """nodes, size: of the file, the size in bytes."""
        by_size = SECONDS + SECONDS_PER_NODE * nodes + SECONDS_PER_BYTE * size
        self.seconds = by_size if limits.seconds is None else limits.seconds
        self.bytes = BYTES + BYTES_PER_BYTE * size if limits.bytes is None else limits.bytes
        self.nodes = NODES if limits.nodes is None else limits.nodes
        self._clock, self._trials_left = Clock(), self.seconds
        self._bytes = self._nodes = 0

    @property
    def seconds_left(self) -> float:
        """The time that is left, negative where it is over."""
        return self.seconds - self._clock.elapsed()

    @property
    def bytes_left(self) -> int:
        """The bytes of constants that may still be made."""
        return self.bytes - self._bytes

    @property
    def nodes_left(self) -> int:
        """The nodes that may still be written out."""
        return self.nodes - self._nodes

    def check(self, step: str, node: onnx.NodeProto | None = None) -> None:
        """Raise LimitExceeded where the time is over."""
        if self.seconds_left < 0:
            raise self.exceeded("seconds", step, node)

    def take_bytes(self, count: int, step: str, name: str) -> None:
        """Count bytes of a new constant. Raises LimitExceeded where they are not left."""
        if count > self.bytes_left:
            raise self.exceeded("bytes", step, name, self._bytes + count)
        self._bytes += count

    def take_nodes(self, count: int, step: str, node: onnx.NodeProto | str | None = None) -> None:
        """Count new nodes. Raises LimitExceeded where they are not left."""
        if count > self.nodes_left:
            raise self.exceeded("nodes", step, node, self._nodes + count)
        self._nodes += count

    def exceeded(
        self, resource: str, step: str, node: onnx.NodeProto | str | None, needed: int | None = None
    ) -> LimitExceeded:
        """Return the error: what ran out, in which step and at which node, the limit, and how to raise it."""
        at = f", at {_named(node)}" if node is not None else ""
        limit = getattr(self, resource)
        asked = f"; {needed:,} are needed" if needed is not None else ""
        stated = f"{limit:.3g} seconds" if resource == "seconds" else f"{limit:,} {resource}"
        larger = f"{needed or 4 * limit:.6g}" if resource == "seconds" else str(needed or 4 * limit)
        return LimitExceeded(
            f"preparing the model may take {stated}, which ran out in {step}{at}{asked}. "
            f"Fix: if you trust the file, {_FIXES[resource].format(larger, larger)}"
        )

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """Stop the clock while the model itself runs."""
        running = Clock()
        try:
            yield
        finally:
            self._clock.leave_out(running)

    @contextlib.contextmanager
    def trial(self) -> Iterator[Trial]:
        """Stop the clock while the model itself runs on noise, and the runs when all trials have taken `seconds`."""
        trial = Trial(self._trials_left)
        token = _TRIAL.set(trial)
        try:
            with self.uncounted():
                yield trial
        finally:
            _TRIAL.reset(token)
            self._trials_left -= trial.clock.elapsed()

    @contextlib.contextmanager
    def watched(self, step: str, node: onnx.NodeProto | None = None) -> Iterator[Any]:
        """Give the options of a run in ONNX Runtime that is stopped, between two nodes, when a limit is reached.

        Raises LimitExceeded in the place of the runtime's error.
        """
        self.check(step, node)
        found: list[str] = []
        # A run may hold what it computes twice, and the node that is running is not interrupted.
        most = resident_bytes() + 2 * max(self.bytes_left, 0)

        def over() -> bool:
            if self.seconds_left < 0:
                found.append("seconds")
            elif resident_bytes() > most:
                found.append("bytes")
            return bool(found)

        try:
            with stopped_when(over) as options:
                yield options
        except Exception as error:
            if found:
                raise self.exceeded(found[0], step, node) from error
            raise


@dataclass
class Trial:
    """Runs of a model on noise, which end after some seconds. stopped: whether one was ended."""

    seconds: float
    stopped: bool = False
    clock: Clock = field(default_factory=Clock)

    def over(self) -> bool:
        """Return whether the time is over, and note that a run is stopped for it."""
        self.stopped = self.stopped or self.clock.elapsed() > self.seconds
        return self.stopped


@contextlib.contextmanager
def stopped_when(over: Callable[[], bool]) -> Iterator[Any]:
    """Give the options of a run in ONNX Runtime that stops, between two nodes, once a condition holds."""
    import onnxruntime

    options, ended = onnxruntime.RunOptions(), threading.Event()

    def watch() -> None:
        while not ended.wait(_INTERVAL):
            if over():
                options.terminate = True
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield options
    finally:
        ended.set()
        watcher.join()


def _named(node: onnx.NodeProto | str) -> str:
    if isinstance(node, str):
        return repr(node)
    return f"node {node.name or next(iter(node.output), '')!r} ({node.op_type})"


_BY_SIZE = Limits()
_LIMITS: ContextVar[Limits] = ContextVar("onnxplain_limits", default=_BY_SIZE)
_BUDGET: ContextVar[Budget | None] = ContextVar("onnxplain_budget", default=None)

_TRIAL: ContextVar[Trial | None] = ContextVar("onnxplain_trial", default=None)


def current_trial() -> Trial | None:
    """Return the trial under way, to which the runs of ONNX Runtime belong."""
    return _TRIAL.get()


@contextlib.contextmanager
def limited(limits: Limits | None) -> Iterator[None]:
    """Set the limits of the preparations that begin inside; None leaves those that are set."""
    token = _LIMITS.set(_LIMITS.get() if limits is None else limits)
    try:
        yield
    finally:
        _LIMITS.reset(token)


@contextlib.contextmanager
def preparing(proto: onnx.ModelProto) -> Iterator[Budget]:
    """Open the budget of a model's preparation; one inside another draws on the outer one."""
    outer = _BUDGET.get()
    if outer is not None:
        yield outer
        return
    budget = Budget(_LIMITS.get(), len(proto.graph.node), size_of(proto))
    token = _BUDGET.set(budget)
    try:
        yield budget
    finally:
        _BUDGET.reset(token)


def current() -> Budget:
    """Return the budget of the preparation under way; outside of one, a new one."""
    return _BUDGET.get() or Budget(_LIMITS.get(), 0, 0)
