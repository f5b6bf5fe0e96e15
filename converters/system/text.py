"""Make the text of a model's file safe to show: names, metadata, messages of other tools.

A name may hold anything. Control characters could move the cursor or retitle a terminal, marks of direction hide what
a line says, and `::error::` at a line's start is a command to some CI servers.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from typing import IO, Any

# C0 and C1 controls but for tab and newline; marks of direction; separators of lines; a byte that is no character.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_COMMAND = re.compile(
    r"::(?=(?:error|warning|notice|debug|group|endgroup|echo|stop-commands"
    r"|(?:add|remove)-(?:mask|path|matcher)|set-(?:env|output)|save-state)\b)|##(?=\[)",
    re.IGNORECASE,
)


def printable(text: str) -> str:
    r"""Return a text with its unsafe characters written out, such as \x1b, and commands to CI servers broken."""
    text = _UNSAFE.sub(lambda found: _escaped(found.group()), text)
    return _COMMAND.sub(lambda found: f"{found.group()[0]}\\{found.group()[1:]}", text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, which takes an s where the number is not one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def fitted(text: str, stream: IO[Any] | None) -> str:
    """Return one line of text, on a terminal as several that are broken between words."""
    if stream is None or not stream.isatty():
        return text
    width = max(shutil.get_terminal_size().columns, 20)
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return "\n".join(lines) or text


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
