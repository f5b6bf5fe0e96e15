"""A result as text for a terminal, as HTML for a notebook, as JSON and as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.figures.numbers import format_error, format_seconds, format_value
from analyzer.methods.drawing import thumbnail
from analyzer.methods.result import Attribution, class_label
from converters.system.text import printable

if TYPE_CHECKING:
    import pandas

MOST_LISTED = 3
WIDTH = 110


def text(result: Attribution) -> str:
    """Return a result in at most five lines."""
    lines = [
        f"{type(result).__name__}: {result.label}",
        *(f"  {name}: {value}" for name, value in _facts(result)),
    ]
    return "\n".join(line if len(line) <= WIDTH else line[: WIDTH - 1] + "…" for line in lines[:5])


def _facts(result: Attribution) -> list[tuple[str, str]]:
    """Return the lines of the short text as (name, value) pairs, the most important first."""
    count = len(np.atleast_1d(result.output))
    arrays = {name: np.shape(array) for name, array in result.by_tensor(result.attributions).items()}
    shown = [f"{name or 'input'} {shape}" for name, shape in list(arrays.items())[:MOST_LISTED]]
    more = f" and {len(arrays) - MOST_LISTED} more" if len(arrays) > MOST_LISTED else ""
    found = [("map" if result.is_map else "attributions", printable(", ".join(shown)) + more)]
    outputs = np.asarray(result.output, np.float64).reshape(count, -1)[:, 0]
    explained = [
        " ".join(filter(None, [_class(result, index), format_value(float(outputs[index]))]))
        for index in range(min(count, MOST_LISTED))
    ]
    rest = f" and {count - MOST_LISTED} more" if count > MOST_LISTED else ""
    found.append(("explained", printable(", ".join(explained)) + rest))
    if result.completeness is not None:
        worst = float(np.max(result.completeness.error))
        found.append(("completeness", f"relative error {format_error(worst)} at most"))
    settings = ", ".join(f"{name}={value!r}" for name, value in result.settings.items() if value is not None)
    if settings or result.seconds == result.seconds:
        seconds = "" if result.seconds != result.seconds else format_seconds(result.seconds)
        found.append(("settings", printable("; ".join(filter(None, [settings, seconds])))))
    return found


def _class(result: Attribution, sample: int) -> str:
    if result.target is None:
        return ""
    if np.ndim(result.target) == 2:
        return f"{np.shape(result.target)[1]} classes"
    return result.class_of(sample)


def html(result: Attribution) -> str:
    """Return a result as HTML: its picture and its numbers. All text is escaped."""
    return fragment(f"{type(result).__name__}: {result.label}", _facts(result), _picture(result))


def fragment(title: str, facts: list[tuple[str, str]], picture: bytes | None = None) -> str:
    """Return a title, a table of facts and a PNG as one piece of HTML. All text is escaped."""
    from analyzer.report.templates import template

    return template("result.html").render(title=title, facts=facts, picture=picture)


def _picture(result: Attribution) -> bytes | None:
    try:
        return thumbnail(result)
    except (ValueError, MemoryError):  # A notebook shows the numbers where nothing can be drawn.
        return None


def document(result: Attribution) -> dict[str, Any]:
    """Return the numbers of every sample as plain data."""
    sums = result.completeness
    names = None
    if result.target is not None and result.class_names is not None:
        names = [class_label(int(index), result.class_names) for index in np.ravel(result.target)]
    found: dict[str, Any] = {
        "method": result.method,
        "settings": dict(result.settings),
        "seconds": None if result.seconds != result.seconds else result.seconds,
        "samples": result.samples,
        "output": np.asarray(result.output).tolist(),
        "target": None if result.target is None else np.asarray(result.target).tolist(),
        "target_name": names,
        "tensors": {
            name: list(np.shape(array)) for name, array in result.by_tensor(result.attributions).items()
        },
        **result.stated,
    }
    if sums is not None:
        found |= {
            "explained": sums.output.tolist(),
            "total": sums.total.tolist(),
            "relative_error": sums.error.tolist(),
        }
    return found


def frame(result: Attribution) -> pandas.DataFrame:
    """Return a row for each sample, and of several classes for each of them; of a table a column for each feature."""
    import pandas

    rows = []
    for one in result.of_each_class:
        sums = one.completeness
        tables = {n: a for n, a in one.by_tensor(one.map).items() if np.ndim(a) == 2}
        for index in range(len(np.atleast_1d(one.output))):
            row: dict[str, Any] = {"sample": index}
            if one.target is not None:
                row |= {"target": int(np.ravel(one.target)[index]), "target_name": one.class_of(index)}
            row["output"] = float(np.atleast_1d(one.output)[index])
            if sums is not None:
                row |= {
                    "explained": float(sums.output[index]),
                    "total": float(sums.total[index]),
                    "relative_error": float(sums.error[index]),
                }
            for name, array in tables.items():
                row |= {f"{name or 'input'}[{k}]": float(value) for k, value in enumerate(array[index])}
            rows.append(row)
    return pandas.DataFrame(rows)
