"""What a command writes and where: results on stdout, messages and progress on stderr.

With `json` stdout holds one JSON document and nothing else.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from converters.system.plain_data import plain
from converters.system.progress_lines import PATIENCE, Pace, ProgressLines
from converters.system.text import fitted, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

WIDTH_WITHOUT_TERMINAL = 120
READING = 10.0
"""Seconds before reading a model is announced: until then an error is the only line."""
# Of a table, in a terminal or a file: about 1 ms is needed to lay out a row.
MOST_ROWS = 2_000


class UserError(Exception):
    """Bad usage or bad input; the message is one line that says what, where and what to do."""


class Terminal:
    """The two streams of one command."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.out = _console(stderr=False, quiet=as_json)
        self.err = _console(stderr=True, quiet=False)

    def note(self, text: str) -> None:
        """A remark on stderr."""
        self.err.print(fitted(text, self.err.file), style="dim", soft_wrap=True)

    def remark(self, text: str) -> None:
        """A remark among the results, on stdout."""
        self.out.print(fitted(text, self.out.file), style="dim", soft_wrap=True)

    def failure(self, reason: str) -> None:
        """Why a check failed: the last line, on stderr, where a log or a CI server looks first."""
        line = f"onnxplain: failed: {' '.join(printable(reason).split())}"
        print(fitted(line, sys.stderr), file=sys.stderr)

    def paragraph(self, text: str, style: str = "") -> None:
        """A text on stdout, wrapped and indented on a terminal, one line elsewhere."""
        from rich.padding import Padding
        from rich.text import Text

        if self.out.is_terminal:
            self.out.print(Padding(Text(text, style), (0, 0, 0, 2)))
        else:
            self.out.print(f"  {text}", style=style, soft_wrap=True)

    def heading(self, text: str) -> None:
        """A line above a table."""
        self.out.print()
        self.out.print(text, style="bold")

    def document(self, content: Mapping[str, Any]) -> None:
        """The JSON document of a command run with --json."""
        if self.as_json:
            print(json.dumps(plain(content), indent=2, allow_nan=False), file=sys.stdout)

    def line(self, content: Mapping[str, Any]) -> None:
        """One JSON object on a line of stdout, of a command whose --json writes lines."""
        if self.as_json:
            print(json.dumps(plain(content), allow_nan=False), file=sys.stdout, flush=True)

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[Any]],
        right: Sequence[int] | range = (),
        fixed: Sequence[int] = (),
    ) -> None:
        """A table on stdout; `right` lists the columns aligned right, `fixed` those that are never narrowed."""
        table = _table()
        for index, name in enumerate(columns):
            justify: Literal["left", "right"] = "right" if index in right else "left"
            table.add_column(name, justify=justify, overflow="fold", no_wrap=index in fixed)
        for row in rows[:MOST_ROWS]:
            table.add_row(*row)
        self.out.print(table)
        if len(rows) > MOST_ROWS:
            self.out.print(f"and {len(rows) - MOST_ROWS} more rows, in --json")

    @contextmanager
    def progress(self, description: str, patience: float = PATIENCE) -> Iterator[Callable[[int, int], None]]:
        """A bar on stderr while it is a terminal, else lines; yields report(done, total).

        patience: seconds of work before the first line.
        """
        if not self.err.is_terminal:
            lines = ProgressLines(description, self.note, patience)
            with lines.running():
                yield lines.count
            return
        with self._bar() as bar:
            task = bar.add_task(description, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    @contextmanager
    def samples(self, description: str, pace: Pace) -> Iterator[Callable[[int, int], None]]:
        """The same for samples, with their rate and the time left; yields report(done, total), total 0 if unknown."""
        if not self.err.is_terminal:
            lines = ProgressLines(description, self.note)

            def count(done: int, total: int) -> None:
                pace.count(done, total)
                lines.count(done, total, pace.text("samples"))

            with lines.running():
                yield count
            return
        with self._bar(even=False) as bar:
            task = bar.add_task(description, total=None)

            def update(done: int, total: int) -> None:
                pace.count(done, total)
                counted = f"{done:,} of {total:,}" if total else f"{done:,}"
                told = ", ".join(filter(None, [f"{description}: {counted}", pace.text("samples")]))
                bar.update(task, description=told, completed=done, total=total or None)

            yield update

    @contextmanager
    def steps(self, description: str, expected: int) -> Iterator[Callable[[str], None]]:
        """The same for work in steps, of which about so many are expected; yields step(what is begun)."""
        if not self.err.is_terminal:
            lines = ProgressLines(description, self.note)
            with lines.running():
                yield lambda name: lines.begin(f"{description}: {name}")
            return
        with self._bar(even=False) as bar:
            task = bar.add_task(description, total=expected)
            begun = itertools.count()

            def step(name: str) -> None:
                done = next(begun)
                # What is begun is not yet done, however few steps were expected.
                total = max(expected, done + 1)
                bar.update(task, description=f"{description}: {name}", completed=done, total=total)

            yield step

    def _bar(self, *, even: bool = True) -> Progress:
        """Share done and time passed, on stderr. even: the parts take as long as one another: time left, too."""
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        left = (TextColumn("left"), TimeRemainingColumn()) if even else ()
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=32),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            *left,
            console=self.err,
            transient=True,
        )


def verdict(passed: bool | None) -> Any:
    """A coloured cell for a check's result."""
    from rich.text import Text

    if passed is None:
        return Text("–", style="dim")
    return Text("✓ holds", style="green") if passed else Text("✗ fails", style="bold red")


def _console(*, stderr: bool, quiet: bool) -> Console:
    from rich.console import Console as RichConsole
    from rich.segment import Segment

    class Console(RichConsole):
        def render_str(self, text: str, **settings: Any) -> Text:
            """Names of tensors, classes and files are data, whatever they hold."""
            return super().render_str(printable(text), **settings)

        def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
            for text, style, control in super().render(renderable, options):
                yield Segment(text if control else printable(text), style, control)

    # Brackets and colons in names are no markup.
    console = Console(stderr=stderr, quiet=quiet, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH_WITHOUT_TERMINAL
    return console


def _table() -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(box=SIMPLE_HEAD, header_style="dim", pad_edge=False, show_edge=False)
