"""Cases of Softmax and LogSoftmax."""

from __future__ import annotations

from tests.analyzer.ops.values import case, normal

CASES = [
    case("Softmax", normal(3, 4)),
    case("LogSoftmax", normal(3, 4)),
    case("Softmax", normal(2, 3, 4), axis=1),
    case("LogSoftmax", normal(2, 3, 4), axis=1),
]
