"""A report as JUnit XML, the form in which GitHub, GitLab and Jenkins show the results of tests.

One test suite a pair, one test case a quantity: quantities stay when a network changes, tensors come and go. A
failure's text is the table of its worst rows with the node at fault. A last suite holds the completeness of every
backend, with its time; a backend that was not run is a skipped case. The form is that of Jenkins' schema, which the
other two read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from analyzer.checks.report import describe
from analyzer.checks.text import failure_lines, origin_lines
from analyzer.types import Row
from converters.system.atomic import write_bytes

if TYPE_CHECKING:
    from analyzer.checks.report import Pair, Report

PACKAGE = "onnxplain"
# XML 1.0 has no way to write other control characters; names of tensors may hold any.
_UNWRITABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write_junit(path: str | os.PathLike[str], report: Report) -> None:
    """Write the report beside `path`, then rename it: a reader never sees half a file."""
    root = junit(report)
    ElementTree.indent(root)
    write_bytes(path, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n")


def junit(report: Report) -> ElementTree.Element:
    """The element `testsuites`, its counts those of all cases."""
    suites = [_suite(f"{pair.a} against {pair.b}", _cases_of(pair)) for pair in report.pairs]
    if not report.rows:
        suites.append(_suite("comparisons", [_nothing(report)]))
    suites.append(_suite("completeness", _completeness_cases(report)))
    root = ElementTree.Element("testsuites", name=PACKAGE)
    root.extend(suites)
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.set("time", _seconds(sum(float(suite.get("time", "0")) for suite in suites)))
    return root


def _suite(name: str, cases: Iterable[ElementTree.Element]) -> ElementTree.Element:
    suite = ElementTree.Element(
        "testsuite", name=_text(name), timestamp=datetime.now(UTC).isoformat(timespec="seconds")
    )
    suite.extend(cases)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(len(suite.findall("testcase/failure"))))
    suite.set("errors", "0")
    suite.set("skipped", str(len(suite.findall("testcase/skipped"))))
    suite.set("time", _seconds(sum(float(case.get("time", "0")) for case in suite)))
    return suite


def _case(suite: str, name: str, seconds: float = 0.0) -> ElementTree.Element:
    """The class name groups the cases in every viewer; a dot in it would make packages of a model's name."""
    group = f"{PACKAGE}.{suite.replace('.', '_')}"
    return ElementTree.Element("testcase", classname=_text(group), name=_text(name), time=_seconds(seconds))


def _nothing(report: Report) -> ElementTree.Element:
    """Return the failing case of a report that has compared nothing."""
    case = _case("comparisons", "at least one")
    ElementTree.SubElement(case, "failure", type="NothingToCompare", message=_text(report.headline))
    return case


def _cases_of(pair: Pair) -> Iterable[ElementTree.Element]:
    for quantity, part in pair.by_quantity.items():
        case = _case(f"{pair.a} against {pair.b}", quantity)
        if not part.passed:
            failure = ElementTree.SubElement(
                case, "failure", type="Disagreement", message=_text(describe(part.worst))
            )
            failure.text = _text("\n".join([*failure_lines(part), *origin_lines(pair)]))
        ElementTree.SubElement(case, "system-out").text = _text("\n".join(_measured(part)))
        yield case


def _measured(part: Pair) -> Iterable[str]:
    worst = part.worst
    yield (
        f"{len(part.rows)} compared, {len(part.failures)} failed, {part.explained} explained; worst: "
        f"{worst['tensor']}, relative L2 {worst['relative_l2']:.3e}, allowed {worst['tolerance']:.0e}"
    )
    for row in part.rows:
        if row["explanation"]:
            yield f"{row['tensor']}, relative L2 {row['relative_l2']:.3e}: {row['explanation']}"


def _completeness_cases(report: Report) -> Iterable[ElementTree.Element]:
    # A backend's time is told once, here: it takes part in several pairs.
    for row in report.completeness:
        name = f"{row['method']} on {row['backend']}"
        case = _case("completeness", name, report.seconds.get(row["backend"], 0.0))
        if not row["passed"]:
            failure = ElementTree.SubElement(case, "failure", type="Incomplete", message=_text(describe(row)))
            failure.text = _text(_incomplete(row))
        yield case
    for name, reason in report.skipped.items():
        case = _case("completeness", f"full grad on {name}")
        ElementTree.SubElement(case, "skipped", message=_text(reason))
        yield case


def _incomplete(row: Row) -> str:
    return (
        f"The terms of {row['method']} on {row['backend']} do not sum to the output: "
        f"relative error {row['error']:.3e}, allowed {row['tolerance']:.0e}."
    )


def _seconds(value: float) -> str:
    return f"{value:.3f}"


def _text(text: str) -> str:
    return _UNWRITABLE.sub("\ufffd", text)
