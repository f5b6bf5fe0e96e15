"""`python -m tools.audit`: random graphs before and after every pass, compared in float64.

Prints a table: graphs drawn, graphs that the pass changed, values compared, differences. Exits 1 where a pass changes
a value, or no graph, or where a function that rewrites graphs has no row; the smallest graph that shows a difference
is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict

from tools.audit.coverage import uncovered
from tools.audit.passes import PASSES
from tools.audit.trial import Count, audit


def main() -> int:
    """Run, print; the exit status."""
    options = _parser().parse_args()
    names = options.passes or list(PASSES)
    share = -(-options.graphs // len(names))
    counts = []
    for name in names:
        begun = time.perf_counter()
        counts.append(
            audit(PASSES[name], share, options.seed, None if options.json else _progress(name, share))
        )
        if not options.json:
            print(f"\r{line(counts[-1])} {time.perf_counter() - begun:6.1f} s", flush=True)
    if options.json:
        print(
            json.dumps(
                {
                    "passes": [asdict(count) for count in counts],
                    "without a row": uncovered(),
                    "passed": _passed(counts),
                },
                indent=2,
            )
        )
    else:
        _show(counts, options.verbose)
    return 0 if _passed(counts) else 1


def _passed(counts: list[Count]) -> bool:
    return all(count.passed for count in counts) and not uncovered()


def _progress(name: str, graphs: int) -> object:
    begun = time.perf_counter()
    last = [0.0]

    def show(count: Count) -> None:
        now = time.perf_counter()
        if now - last[0] > 1:
            last[0] = now
            text = f"{name}: {count.graphs} of {graphs} graphs, {count.differences} differences, {now - begun:.0f} s"
            print(f"\r{text:<78}", end="" if sys.stdout.isatty() else "\n", flush=True)

    return show


def line(count: Count) -> str:
    """A row of the table."""
    return (
        f"{count.name:<18}{count.graphs:>8} graphs {count.changed:>8} changed {count.refused:>6} refused "
        f"{count.invalid:>5} invalid {count.values:>10} values {count.differences:>6} differences"
    )


def _show(counts: list[Count], verbose: bool) -> None:
    print()
    for count in counts:
        print(line(count))
    total = Count("total")
    for count in counts:
        for key in ("graphs", "changed", "refused", "invalid", "values", "differences"):
            setattr(total, key, getattr(total, key) + getattr(count, key))
    print(line(total))
    for name in uncovered():
        print(f"\n{name}: the function rewrites graphs, and no row of tools/audit/passes.py covers it")
    for count in counts:
        if not count.changed:
            print(f"\n{count.name}: the pass changed none of its graphs, so the row shows nothing")
        for text in (*count.reproducers, *(count.unexpected[:2] if verbose else [])):
            print(f"\n{text}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.audit", description=__doc__)
    parser.add_argument("--graphs", type=int, default=10_000, help="how many to draw, over all passes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--pass", dest="passes", action="append", choices=list(PASSES), help="one pass; repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--verbose", action="store_true", help="print graphs that could not be evaluated as well"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
