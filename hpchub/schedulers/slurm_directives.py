"""The `#SBATCH` lines of a script: how to write a value, and how sbatch reads it.

sbatch has rules of its own (sbatch/opt.c, _get_argument; checked on 22.05): a backslash escapes in
and out of quotes, a bare `#` begins a comment. Older versions know only double quotes, take `#` for a
comment even there, and blank the word `packjob`, which became `hetjob`, wherever it stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_MARK = "#SBATCH"
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+", re.ASCII)
_COMPONENT = re.compile(r"(het|pack)(job)", re.IGNORECASE | re.ASCII)


def quote_directive(value: str) -> str:
    """A value that every version of sbatch reads back as it was. It must hold no line end."""
    escaped = _COMPONENT.sub(r"\1\\\2", re.sub(r'(["\\#])', r"\\\1", value))
    return escaped if _PLAIN.fullmatch(value) else f'"{escaped}"'


def read_directives(script: str) -> tuple[str, ...]:
    """The options in a script's directives, as sbatch reads them: up to the first command."""
    options: list[str] = []
    for line in script.split("\n"):
        if line.startswith(_MARK):
            options += _words(line.removeprefix(_MARK))
        elif line.strip() and not line.startswith("#"):
            break
    return tuple(options)


def _words(text: str) -> Iterator[str]:
    word, quote, started = "", "", False
    chars = iter(text)
    for char in chars:
        if char == "\\":
            word, started = word + next(chars, ""), True
        elif quote:
            quote, word = ("", word) if char == quote else (quote, word + char)
        elif char in "\"'":
            quote, started = char, True
        elif char == "#":
            break
        elif char.isspace():
            if started:
                yield word
            word, started = "", False
        else:
            word, started = word + char, True
    if started:
        yield word
