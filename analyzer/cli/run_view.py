"""What `onnxplain run` tells: lines of JSON for each part and failed sample, and the counts at the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from analyzer.cli.terminal import Terminal
from converters.system.progress_lines import Pace
from converters.system.text import counted

if TYPE_CHECKING:
    from analyzer.data.job import Watcher
    from analyzer.data.parts import Failure, Part
    from analyzer.data.results import Results


def watcher(terminal: Terminal, pace: Pace, report: Callable[[int, int], None]) -> Watcher:
    """Return the Watcher that shows the events of a job. report: called with the samples done and their total."""
    from analyzer.data.job import Watcher

    seen = {"done": 0, "total": 0}

    def progress(done: int, total: int) -> None:
        seen["done"], seen["total"] = done, total
        report(done, total)

    def failed(failure: Failure) -> None:
        terminal.line({"event": "error", **vars(failure)})
        if not terminal.as_json:
            terminal.note(f"failed: {failure.id}: {failure.reason}")

    def finished(part: Part) -> None:
        terminal.line(
            {
                "event": "part",
                "file": str(part.path),
                "rows": part.rows,
                "errors": len(part.failures),
                "done": seen["done"],
                "total": seen["total"] or None,
                "samples_per_second": pace.per_second,
                "seconds_left": pace.seconds_left,
            }
        )

    return Watcher(progress, failed, finished)


def show(terminal: Terminal, results: Results, shard: tuple[int, int], pace: Pace) -> None:
    """Print the number of explained and failed samples in the folder."""
    failed = len(results.errors)
    terminal.out.print(f"{counted(len(results), 'sample')} explained in {results.folder}", style="bold")
    if failed:
        listed = ", ".join(str(path) for path in sorted(results.folder.glob("errors-*.jsonl")))
        text = f"{counted(failed, 'sample')} failed; the reasons are in {listed}"
        terminal.out.print(text, style="red", soft_wrap=True)
    if (rate := pace.text("samples").partition(",")[0]) and pace.per_second:
        terminal.remark(f"{rate}. Read the results with onnxplain.open_results, or any reader of Parquet.")
    terminal.line(
        {
            "event": "end",
            "folder": str(results.folder),
            "shard": shard[0],
            "shards": shard[1],
            "samples": len(results),
            "errors": failed,
            "complete": results.is_complete,
        }
    )
