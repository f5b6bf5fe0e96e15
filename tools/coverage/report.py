"""Run node tests and count: per op what passes on each backend, what is excluded and why, what fails.

Reads NodeTests, returns a Report as plain data for the terminal, for JSON and for the page of the docs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from converters import load
from tools.coverage.derivatives import Derivative, derivatives
from tools.coverage.exclusions import EXCLUSIONS, VJP, matching, reason
from tools.coverage.forward import BACKENDS, STOCK, backend_failures, described, stock_failure
from tools.coverage.node_tests import NodeTest


@dataclass(frozen=True)
class Result:
    """What came of one case.

    forward: per runner None where it passed, else what went wrong. canonical: the ops of its canonical form.
    constants: whether some of it passes only with its integer inputs as constants of the model.
    """

    name: str
    op: str
    is_float32: bool
    forward: Mapping[str, str | None]
    derivatives: tuple[Derivative, ...] = ()
    canonical: frozenset[str] = frozenset()
    constants: bool = False

    def excluded(self, runner: str) -> str | None:
        """Why the case is left out for a runner it fails on, or None."""
        return None if self.forward[runner] is None else reason(runner, self.name)

    def failures(self) -> dict[str, str]:
        """What fails and is not excluded, by "runner/case": forward passes, then derivatives."""
        found = {
            f"{runner}/{self.name}": text
            for runner, text in self.forward.items()
            if runner != STOCK and text is not None and self.excluded(runner) is None
        }
        return found | {
            f"{VJP}/{place(self.name, one)}": one.failure
            for one in self.derivatives
            if one.failure is not None and reason(VJP, place(self.name, one)) is None
        }

    def patterns(self) -> set[str]:
        """The exclusions that explain a failure of this case."""
        tried = [(runner, self.name) for runner in BACKENDS if self.forward[runner] is not None]
        tried += [(VJP, place(self.name, one)) for one in self.derivatives if one.failure is not None]
        return {pattern for runner, case in tried if (pattern := matching(runner, case)) is not None}


def place(name: str, one: Derivative) -> str:
    """A derivative as exclusions and failures call it: case[output, input]."""
    return f"{name}[{one.output}, {one.input}]"


def measure(test: NodeTest) -> Result:
    """Run one case: forward on every runner, and its derivatives where it is of float32 and runs at all.

    What needs to know integer inputs before running gets a second try with them as constants, as in a file.
    """
    fed = _measured(test, stock_failure(test))
    file = test.as_in_a_file() if fed.failures() else None
    return fed if file is None else _joined(fed, _measured(file, fed.forward[STOCK]))


def _measured(test: NodeTest, stock: str | None) -> Result:
    try:
        model = load(test.model)
    # A case that is refused is a result, whatever raises.
    except Exception as error:
        forward = {STOCK: stock, **dict.fromkeys(BACKENDS, described(error))}
        return Result(test.name, test.op, test.is_float32, forward)
    forward = {STOCK: stock, **backend_failures(test, model)}
    runs = any(forward[backend] is None for backend in BACKENDS)
    found = derivatives(test, model) if test.is_float32 and runs else []
    ops = frozenset(node.op_type for node in model.proto.graph.node)
    return Result(test.name, test.op, test.is_float32, forward, tuple(found), ops)


def _joined(fed: Result, file: Result) -> Result:
    """What passes in either form; `constants` says whether the second form was needed."""
    forward = {runner: text and file.forward[runner] for runner, text in fed.forward.items()}
    passing = {(one.output, one.input): one for one in file.derivatives if one.failure is None}
    found = [passing.get((one.output, one.input), one) if one.failure else one for one in fed.derivatives]
    joined = replace(fed, forward=forward, derivatives=tuple(found) or file.derivatives)
    helped = len(joined.failures()) < len(fed.failures())
    return replace(joined, constants=helped, canonical=file.canonical if helped else fed.canonical)


@dataclass(frozen=True)
class Report:
    """The results of a run."""

    results: tuple[Result, ...]

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Per op: cases, how many pass per runner, derivatives, exclusions with reasons; float32 cases only."""
        ops: dict[str, list[Result]] = {}
        for result in self.results:
            if result.is_float32:
                ops.setdefault(result.op, []).append(result)
        return [{"op": op, **counts(ops[op])} for op in sorted(ops)]

    @cached_property
    def failures(self) -> dict[str, str]:
        """What fails and is not excluded, by "runner/case"."""
        return {place: text for result in self.results for place, text in result.failures().items()}

    @cached_property
    def problems(self) -> list[str]:
        """What makes the run fail, in lines; empty where the standard is covered.

        A case that stock ONNX Runtime passes and a backend does not, and a derivative that is wrong or missing.
        What stock ONNX Runtime does not pass either is listed among the failures alone.
        """
        required = {
            f"{backend}/{result.name}"
            for result in self.results
            if result.forward[STOCK] is None
            for backend in BACKENDS
        }
        return [
            f"{place}: {text}"
            for place, text in self.failures.items()
            if place in required or place.startswith(f"{VJP}/")
        ]

    def grouped_problems(self) -> dict[str, list[str]]:
        """The problems' places by what went wrong, most frequent first."""
        found: dict[str, list[str]] = {}
        for line in self.problems:
            place, _, text = line.partition(": ")
            found.setdefault(text, []).append(place)
        return dict(sorted(found.items(), key=lambda entry: -len(entry[1])))

    @cached_property
    def unused(self) -> list[str]:
        """Exclusions that explain no failure."""
        used = {pattern for result in self.results for pattern in result.patterns()}
        return [pattern for pattern in EXCLUSIONS if pattern not in used]

    def totals(self, *, float32: bool) -> dict[str, Any]:
        """The counts over all cases of float32, or over all others."""
        return counts([result for result in self.results if result.is_float32 == float32])

    def document(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "float32": self.totals(float32=True),
            "others": self.totals(float32=False),
            "ops": self.rows,
            "failures": self.failures,
            "problems": self.problems,
        }


def counts(results: Iterable[Result]) -> dict[str, Any]:
    """The counts of some results: cases, passed per runner, derivatives checked and failed, exclusions."""
    results = list(results)
    found = [one for result in results for one in result.derivatives]
    reasons = Counter(
        why for result in results if (why := next(filter(None, map(result.excluded, BACKENDS)), None))
    )
    missed = [one for result in results for one in result.derivatives if one.failure is not None]
    excused = [
        one
        for result in results
        for one in result.derivatives
        if one.failure is not None and reason(VJP, place(result.name, one)) is not None
    ]
    return {
        "cases": len(results),
        **{runner: sum(r.forward[runner] is None for r in results) for runner in (STOCK, *BACKENDS)},
        "constants": sum(result.constants for result in results),
        "excluded": dict(reasons),
        "derivatives": {
            "checked": len(found) - len(missed),
            "excluded": len(excused),
            "failed": len(missed) - len(excused),
            "by": dict(Counter(label for one in found if one.failure is None for label in one.ran)),
        },
    }
