"""A line of sshd's AuthorizedPrincipalsFile: options, and a principal. Pure.

As sshd reads it: the principal is the last word, the options are separated by commas outside of quotes and
written in any case (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_OPTION = re.compile(r'(?P<name>[A-Za-z-]+)(?:="(?P<value>(?:[^"\\]|\\.)*)")?(?:,|$)')


@dataclass(frozen=True, slots=True)
class PrincipalsLine:
    """Who is let in, and with which restrictions: pairs of a name and a value, empty where it has none."""

    principal: str
    options: tuple[tuple[str, str], ...]

    def has(self, name: str) -> bool:
        """Whether an option is there."""
        return any(option == name for option, _ in self.options)

    def values(self, name: str) -> list[str]:
        """An option's values; it may be there more than once."""
        return [value for option, value in self.options if option == name]


def parse_principals_line(line: str) -> PrincipalsLine:
    """One line that is neither empty nor a comment. Options that cannot be read are left out."""
    before, _, principal = line.strip().replace("\t", " ").rpartition(" ")
    options = tuple(
        (match["name"].lower(), (match["value"] or "").replace('\\"', '"'))
        for match in _OPTION.finditer(before.strip())
    )
    return PrincipalsLine(principal, options)
