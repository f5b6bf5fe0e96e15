"""Integrate along all lines, by a fixed quadrature or to a goal, as many at a time as their gradients fit into memory.

From Lines to the mean of each sample's attributions over its baselines, with what is known of their errors. An
interrupt (Ctrl-C) ends it with what was computed by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from analyzer.backends.batching.memory import budget
from analyzer.methods.paths.lines import Lines
from analyzer.methods.paths.quadrature import quadrature
from analyzer.methods.paths.refinement import Goal, Refined, refine
from analyzer.types import Progress

Group = Callable[[range, Progress | None], tuple[list[Refined], bool]]
"""Some lines, by their numbers, to what each comes to, and whether an interrupt ended it."""


class Sums:
    """What the lines of every sample come to, one line after the other: means over its baselines, (N, K, D)."""

    def __init__(self, lines: Lines, size: int) -> None:
        """size: D, the numbers that are attributed in a sample."""
        self.baselines = len(lines.starts)
        each = (lines.held.samples, lines.targets)
        self.mean = np.zeros((*each, size))
        self.squares = np.zeros_like(self.mean) if self.baselines > 1 else None
        self.difference = np.zeros(each)
        self.spent = np.zeros(each[0], int)
        self.converged = np.ones(each, bool)
        self._seen = np.zeros(each[0], int)
        self._numbers = {name: np.zeros(each) for name in STATED}

    @property
    def most(self) -> int:
        """The gradients of the sample that took the most."""
        return int(self.spent.max())

    def add(self, line: int, found: Refined) -> None:
        """One line. Welford's recurrence keeps the variance over baselines."""
        sample = line // self.baselines
        self._seen[sample] += 1
        before = found.total - self.mean[sample]
        self.mean[sample] += before / self._seen[sample]
        if self.squares is not None:
            self.squares[sample] += before * (found.total - self.mean[sample])
        self.difference[sample] += found.difference / self.baselines
        self.spent[sample] += found.evaluations
        self.converged[sample] &= found.converged
        size = np.linalg.norm(found.total, axis=1)
        for name, numbers in self._numbers.items():
            number = getattr(found, name) * (size if name in RELATIVE else 1)
            numbers[sample] += number / self.baselines

    def missing(self, line: int, difference: np.ndarray) -> None:
        """A line that was not begun: nothing of its difference (K,) is attributed."""
        sample = line // self.baselines
        self.difference[sample] += difference / self.baselines
        self.mean[sample] *= self._seen[sample] / (self._seen[sample] + 1)
        self._seen[sample] += 1
        self.converged[sample] = False

    def standard_error(self, k: int) -> np.ndarray | None:
        """Of the k-th mean over baselines, (N, D); None of a single one."""
        if self.squares is None:
            return None
        error: np.ndarray = np.sqrt(self.squares[:, k] / (self.baselines * (self.baselines - 1)))
        return error

    def stated(self, k: int) -> dict[str, Any]:
        """The numbers of a refinement. Errors of maps of several baselines are added, which errs on the safe side."""
        size = np.linalg.norm(self.mean[:, k], axis=1)
        found = {name: numbers[:, k] for name, numbers in self._numbers.items()}
        shares = {name: np.divide(found[name], size, out=0 * size, where=size > 0) for name in RELATIVE}
        return {**found, **shares}


RELATIVE = ("map_error", "map_change")
STATED = ("interval_error", "scatter", *RELATIVE)


def integrate(
    lines: Lines, goal: Goal | None, fixed: tuple[str, int], progress: Progress | None
) -> tuple[Sums, bool]:
    """Integrate all lines, as many at a time as their gradients fit into memory."""

    def group(numbers: range, tell: Progress | None) -> tuple[list[Refined], bool]:
        if goal is not None:
            return refine(lines, numbers, goal, tell)
        return _by_rule(lines, numbers, *fixed, tell)

    kept = 2 if goal is None else goal.budget
    size = max(lines.size, lines.gradient_size)
    line_bytes = kept * lines.targets * size * max(lines.item_bytes, 8)
    return integrate_groups(lines, lines.size, line_bytes, group, progress)


def integrate_groups(
    lines: Lines, size: int, line_bytes: int, group: Group, progress: Progress | None
) -> tuple[Sums, bool]:
    """Integrate along all lines, a group at a time; the flag says whether an interrupt ended it.

    size: D, the numbers that are attributed in a sample. line_bytes: what one line takes meanwhile.
    """
    sums = Sums(lines, size)
    fit = max(1, budget(lines.held.fn.max_memory) // line_bytes)
    groups = [range(begin, min(begin + fit, lines.count)) for begin in range(0, lines.count, fit)]
    done = 0
    for place, numbers in enumerate(groups):
        tell = None if progress is None else _ahead(progress, done, len(numbers), lines.count - numbers.start)
        found, interrupted = group(numbers, tell)
        for number, state in zip(numbers, found, strict=True):
            sums.add(number, state)
        done += sum(state.evaluations for state in found)
        if interrupted:
            left = [number for numbers in groups[place + 1 :] for number in numbers]
            for number, difference in zip(left, differences(lines, left), strict=True):
                sums.missing(number, difference)
            return sums, True
    if progress is not None:
        progress(done, done)
    return sums, False


def unrefined(total: np.ndarray, difference: np.ndarray, evaluations: int, *, whole: bool) -> Refined:
    """One line by a fixed rule. total (K, D); difference (K,). whole: whether all its points were evaluated."""
    none = np.zeros(len(total))
    delta = total.sum(axis=1) - difference
    return Refined(total, difference, delta, none, none, none, none, evaluations, np.full(len(total), whole))


def _by_rule(
    lines: Lines, numbers: range, rule: str, steps: int, tell: Progress | None
) -> tuple[list[Refined], bool]:
    """By a fixed quadrature, its nodes gone through evenly: an interrupt leaves a thinner one of the whole path."""
    nodes, weights = quadrature(rule, steps)
    totals = np.zeros((len(numbers), lines.targets, lines.gradient_size))
    mass, spent = np.zeros(len(numbers)), np.zeros(len(numbers), int)
    wanted = [(number, node) for node in evenly(steps) for number in numbers]
    interrupted = False
    try:
        points = lines.evaluate([(number, nodes[node]) for number, node in wanted])
        for (number, node), point in zip(wanted, points, strict=True):
            row = number - numbers.start
            totals[row] += weights[node] * point.gradient
            mass[row] += weights[node]
            spent[row] += 1
            if tell is not None:
                tell(int(spent.sum()), len(wanted))
    except KeyboardInterrupt:
        interrupted = True
    means = totals / np.where(mass, mass, 1)[:, None, None]
    attributed = zip(lines.attributions(numbers, means), differences(lines, numbers), spent, strict=True)
    found = [
        unrefined(total, difference, int(taken), whole=bool(taken == steps))
        for total, difference, taken in attributed
    ]
    return found, interrupted


def differences(lines: Lines, numbers: Sequence[int]) -> np.ndarray:
    """f(x) − f(x′) of some lines, (n, K), by forward passes at their starts."""
    held, baselines = lines.held, len(lines.starts)
    found = np.zeros((len(numbers), lines.targets))
    for begin in range(0, len(numbers), lines.batch_size):
        part = np.asarray(numbers[begin : begin + lines.batch_size])
        rows, which = np.divmod(part, baselines)
        points = {
            name: np.stack([lines.starts[k][name][row] for k, row in zip(which, rows, strict=True)])
            for name in held.names
        }
        difference = held.output[rows].astype(np.float64) - held.outputs(points, rows)
        found[begin : begin + len(part)] = difference.reshape(len(part), -1)
    return found


def evenly(count: int) -> np.ndarray:
    """The numbers below `count`, each beginning of them spread evenly."""
    return np.argsort([_reversed_bits(k) for k in range(count)], kind="stable")


def _reversed_bits(number: int) -> float:
    """Van der Corput's sequence: every beginning of it lies evenly in [0, 1)."""
    value, half = 0.0, 0.5
    while number:
        number, bit = divmod(number, 2)
        value += bit * half
        half /= 2
    return value


def _ahead(progress: Progress, done: int, group: int, left: int) -> Progress:
    """Progress of a group of lines as that of all: those to come take as long as these."""

    def tell(now: int, planned: int) -> None:
        progress(done + now, done + planned * left // group)

    return tell
