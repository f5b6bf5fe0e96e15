"""Write numbers as text for people: errors, values and durations."""

from __future__ import annotations

import math


def format_error(number: float | None) -> str:
    """An error: "3.1e-07", "0" where exact, a dash where there is none."""
    if number is None or math.isnan(number):
        return "–"
    if number == 0:
        return "0"
    return f"{number:.1e}" if abs(number) < 0.01 else f"{number:.3g}"


def format_value(number: float | None) -> str:
    """A value with its sign as typographic minus, three significant digits: "9.17", "−0.0043", "1,230", "4.2e+07"."""
    if number is None or math.isnan(number):
        return "–"
    size = abs(number)
    hundreds = 999.5 <= size < 999_500
    text = f"{round(number, 2 - math.floor(math.log10(size))):,.0f}" if hundreds else f"{number:.3g}"
    return text.replace("-", "−")


def format_seconds(number: float) -> str:
    """A duration: "0.12 s", "34 s"."""
    return f"{number:.2f} s" if number < 10 else f"{number:.0f} s"
