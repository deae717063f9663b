"""Reads TOML tables strictly: every fault in a file is found, and named with its place, at once.

An unknown key is a fault that names the nearest valid one. Places are dotted keys as TOML writes
them (`partitions.cpu.max_time`), with the line where one can be told. Cluster files and the
settings of the signer and the bridge are read through here.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from hpchub.core.shown import shown
from hpchub.core.slugs import is_scheduler_name
from hpchub.errors import ConfigError

_Choice = TypeVar("_Choice", bound=StrEnum)
_Value = TypeVar("_Value")


def load_table(path: Path, read: Callable[[Table], _Value | None], headline: str) -> _Value:
    """What `read` makes of a file's top table.

    Args:
        path: The TOML file.
        read: Reads the top table and calls `finish` on it and on every table inside.
        headline: The message of the error, for example "The cluster file demo.toml is wrong:".

    Raises:
        ConfigError: The file cannot be read, or some fault was noted; `problems` lists all.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(headline, problems=[f"{path}: cannot be read: {error}"]) from error
    try:
        body = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(headline, problems=[f"{path}: is not TOML: {error}"]) from error
    problems: list[tuple[str, str]] = []
    value = read(Table(body, "", problems))
    if problems or value is None:
        lines = text.split("\n")
        raise ConfigError(headline, problems=[_located(path, lines, where, what) for where, what in problems])
    return value


class Table:
    """A TOML table read key by key. A fault is noted in `problems` and reading goes on."""

    def __init__(self, body: Mapping[str, Any], where: str, problems: list[tuple[str, str]]) -> None:
        self._body = body
        self._where = where
        self._problems = problems
        self._known: set[str] = set()

    def fault(self, key: str, what: str) -> None:
        """Note that a key, or the table itself where `key` is empty, is wrong."""
        self._problems.append((f"{self._where}.{key}".lstrip(".") if key else self._where, what))

    def has(self, key: str) -> bool:
        """Whether the key is there; asking makes it a valid one."""
        self._known.add(key)
        return key in self._body

    def text(
        self, key: str, default: str | None = None, pattern: re.Pattern[str] | None = None, what: str = ""
    ) -> str:
        """A text of one line, whole within `pattern`, which `what` says in words; required where there is no
        default.
        """

        def parse(value: object) -> str:
            if not isinstance(value, str) or not value or any(ord(char) < 32 for char in value):
                raise ValueError(f"{shown(value)} is not a text of one line")
            if pattern and not pattern.fullmatch(value):
                if what:
                    raise ValueError(f"{shown(value)} is not {what}")
                raise ValueError(f"{shown(value)} may hold only what {pattern.pattern} allows")
            return value

        return self._value(key, parse, default, "")

    def integer(self, key: str, default: int | None = None, *, low: int, high: int) -> int:
        """A whole number from `low` to `high`."""

        def parse(value: object) -> int:
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ValueError(f"{shown(value)} is not a whole number from {low} to {high}")
            return value

        return self._value(key, parse, default, low)

    def amount(self, key: str, parse_text: Callable[[str], int], default: int | None = None) -> int:
        """A text that `parse_text` turns into a number; its ValueError is the fault."""

        def parse(value: object) -> int:
            if not isinstance(value, str):
                raise ValueError(f"{shown(value)} is not a text")  # noqa: TRY004  one kind for `_value` to catch
            return parse_text(value)

        return self._value(key, parse, default, 0)

    def amounts(
        self, key: str, parse_text: Callable[[str], int], default: tuple[int, ...]
    ) -> tuple[int, ...]:
        """A list of such texts; it may be empty."""

        def parse(value: object) -> tuple[int, ...]:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"{shown(value)} is not a list of texts")
            return tuple(parse_text(item) for item in value)

        return self._value(key, parse, default, ())

    def boolean(self, key: str, default: bool) -> bool:
        """`true` or `false`."""

        def parse(value: object) -> bool:
            if not isinstance(value, bool):
                raise ValueError(f"{shown(value)} is not true or false")  # noqa: TRY004  one kind for `_value`
            return value

        return self._value(key, parse, default, False)

    def choice(self, key: str, kind: type[_Choice], default: _Choice | None = None) -> _Choice:
        """A member of an enumeration, by its value."""
        names = [member.value for member in kind]

        def parse(value: object) -> _Choice:
            if value not in names:
                raise ValueError(f"{shown(value)} is not one of {', '.join(names)}{nearest(value, names)}")
            return kind(value)

        return self._value(key, parse, default, next(iter(kind)))

    def texts(self, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        """A list of texts, each whole within `pattern`; empty where it is left out."""

        def parse(value: object) -> tuple[str, ...]:
            if not isinstance(value, list) or not all(
                isinstance(item, str) and pattern.fullmatch(item) for item in value
            ):
                raise ValueError(f"{shown(value)} is not a list of texts that {pattern.pattern} allows")
            return tuple(value)

        return self._value(key, parse, (), ())

    def table(self, key: str) -> Table:
        """A table inside this one; empty, with a fault noted, where it is no table."""
        self._known.add(key)
        body = self._body.get(key, {})
        if not isinstance(body, dict):
            self.fault(key, f"is not a table; write [{key}]")
            body = {}
        return Table(body, f"{self._where}.{key}".lstrip("."), self._problems)

    def tables(self, key: str) -> list[Table]:
        """An array of tables, `[[key]]`."""
        self._known.add(key)
        rows = self._body.get(key, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            self.fault(key, f"is not an array of tables; write [[{key}]]")
            return []
        return [Table(row, f"{key}[{index}]", self._problems) for index, row in enumerate(rows)]

    def named_tables(self, key: str) -> list[tuple[str, Table]]:
        """Tables by name, `[key.name]`. A name the scheduler could not bear is a fault."""
        outer = self.table(key)
        named = []
        for name in outer._body:
            if not is_scheduler_name(name):
                outer.fault(name, f"{shown(name)} is not a name of letters, digits, '.', '_', '+' and '-'")
            named.append((name, outer.table(name)))
        return named

    def finish(self) -> None:
        """Note every key that nobody asked for."""
        for key in self._body:
            if key not in self._known:
                self.fault(key, f"there is no key {shown(key)} here{nearest(key, sorted(self._known))}")

    def _value(
        self, key: str, parse: Callable[[object], _Value], default: _Value | None, broken: _Value
    ) -> _Value:
        self._known.add(key)
        if key not in self._body:
            if default is None:
                self.fault(key, "is missing")
                return broken
            return default
        try:
            return parse(self._body[key])
        except ValueError as error:
            self.fault(key, str(error))
            return broken


def nearest(value: object, names: Sequence[str]) -> str:
    """The end of a message: `; did you mean …?`, or all valid names where none is near."""
    close = difflib.get_close_matches(str(value), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid are {', '.join(names)}" if names else ""


def _located(path: Path, lines: Sequence[str], where: str, what: str) -> str:
    """`file:line: place: what`, the line found by the key's own name after its table's header."""
    outer, _, key = where.rpartition(".")
    table, row = re.sub(r"\[\d+\]", "", outer), re.search(r"\[(\d+)\]", outer)
    rows_before = int(row[1]) if row else 0
    in_table = not outer
    for number, line in enumerate(lines, start=1):
        if line.lstrip().startswith("["):
            named = re.sub(r"[\s\[\]\"']", "", line.split("#")[0])
            if named == where:
                return f"{path}:{number}: {where}: {what}"
            in_table = named == table and rows_before == 0
            rows_before -= named == table
        elif in_table and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return f"{path}:{number}: {where}: {what}"
    return f"{path}: {where}: {what}" if where else f"{path}: {what}"
