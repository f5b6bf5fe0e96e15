"""List the texts in a protocol buffer: the names by which its parts refer to one another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any


def texts(message: Any) -> Iterator[str]:
    """Every text in a protocol buffer, but for the values of tensors."""
    for field, value in message.ListFields():
        if field.name == "tensor":
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            yield from (key for key in value if isinstance(key, str))
            parts: Iterable[Any] = value.values()
        elif hasattr(value, "ListFields") or isinstance(value, (str, bytes, bool, int, float)):
            parts = (value,)
        else:
            parts = value
        for part in parts:
            if hasattr(part, "ListFields"):
                yield from texts(part)
            elif isinstance(part, (str, bytes)):
                yield part if isinstance(part, str) else part.decode(errors="replace")
