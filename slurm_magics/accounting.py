"""Which command answers `%sacctmgr show`, `%sreport`, `%sshare` or `%sstat`, and how it is read. No I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING

from hpchub.errors import UnexpectedOutput
from slurm_magics import columns
from slurm_magics.delimited import Table
from slurm_magics.done import as_text
from slurm_magics.entities import LATER_FIELDS, entity_fields, full_name, is_question, verb_place
from slurm_magics.options import HELP, JSON, Syntax, scan
from slurm_magics.piped import WIDTH, parse_piped, parse_wide
from slurm_magics.reports import default_fields, percentages_apart, read_title
from slurm_magics.values import Kind

if TYPE_CHECKING:
    import pandas as pd

# Shapes that are ours to choose. A table without headings would not be noticed: so every spelling is here.
_SHAPE = dict.fromkeys(
    ["-n", "--no", "--noh", "--nohe", "--noheader", "-p", "-P", "--parsable", "--parsable2"], "noheader"
)
_SSHARE = Syntax(
    with_value="AMou",
    known={
        **_SHAPE, **HELP, **JSON, "-h": "noheader", "-o": "format=", "--format": "format=", "-e": "text",
        "--helpformat": "text", "-l": "long", "--long": "long", "-m": "partition", "--partition": "partition",
    },
    kept=frozenset({"text", "long", "partition"}),
)  # fmt: skip
_SSTAT = Syntax(
    with_value="jo",
    known={**_SHAPE, **HELP, **JSON, "-h": "text", "-e": "text", "--helpformat": "text"},
    kept=frozenset({"text"}),
)
_SREPORT = Syntax(
    with_value="MstT",
    known={**_SHAPE, **HELP, **JSON, "-h": "text", "-T": "tres=", "--tres": "tres="},
    kept=frozenset({"text", "tres"}),
)
_SACCTMGR = Syntax(
    with_value="",
    known={**_SHAPE, **HELP, **JSON, "-h": "text", "-s": "associations", "--associations": "associations"},
    kept=frozenset({"text", "associations"}),
)

# The fields that sshare shows itself: sshare(1).
_SHARES = "Account,User{0},RawShares,NormShares,RawUsage,EffectvUsage,FairShare"
_SHARES_LONG = (
    "Account,User{0},RawShares,NormShares,RawUsage,NormUsage,EffectvUsage,FairShare,LevelFS,GrpTRESMins,"
    "TRESRunMins"
)

_FORMAT_WORD = re.compile(r"f(?:o(?:r(?:m(?:a(?:t)?)?)?)?)?=(.*)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PipedQuery:
    """A command and the way to read it. `wide` is the same question with columns of a fixed width.

    `older` is to be asked where this one's fields are unknown: an older Slurm has fewer.
    """

    argv: tuple[str, ...]
    kinds: Mapping[str, Kind]
    environ: Mapping[str, str | None]
    twice: int = 0
    wide: tuple[str, ...] = ()
    is_wide: bool = False
    is_tree: bool = False
    older: PipedQuery | None = None

    def instead(self, answer: bytes) -> PipedQuery | None:
        """The question that is to be asked instead, where this answer cannot be read for certain.

        Raises:
            UnexpectedOutput: This is no table, or there is no other way to ask.
        """
        if self.is_wide or self._piped(answer) is not None:
            return None
        if not self.wide:
            raise UnexpectedOutput(self.argv[0], "a row that does not fit its headings")
        return replace(self, argv=self.wide, wide=(), is_wide=True)

    def _piped(self, answer: bytes) -> Table | None:
        return parse_piped(self.argv[0], as_text(answer), self.twice)

    def frame(self, answer: bytes, zone: tzinfo) -> tuple[pd.DataFrame, tuple[str, ...]]:
        """The answer as a frame, and the lines that were no part of it. A report's title is in its `attrs`.

        Raises:
            UnexpectedOutput: This is no table, or one that cannot be read for certain.
        """
        from slurm_magics import frames

        table = parse_wide(self.argv[0], answer) if self.is_wide else self._piped(answer)
        if table is None:
            raise UnexpectedOutput(self.argv[0], "a row that does not fit its headings")
        title, notices = read_title(table.notices, lambda seconds: _iso(seconds, zone))
        kinds = self.kinds
        if self.argv[0] == "sreport":
            table, kinds = percentages_apart(table, kinds, title)
        if self.is_tree:
            table = _levels_apart(table)
        parts = (
            ("Job", "Task", "Het", "Step") if self.argv[0] == "sstat" and table.headings[0] == "JobID" else ()
        )
        frame = frames.table_to_frame(table, kinds, zone=zone, parts=parts)
        if title:
            frame.attrs["title"] = title
        return frame, notices


def _iso(seconds: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(seconds, zone).isoformat()


def _levels_apart(table: Table) -> Table:
    """Accounts without the blanks that show their place in the tree; how many there were is a column."""
    if "Account" not in table.headings:
        return table
    place = table.headings.index("Account")
    accounts = table.columns[place]
    levels = [str(len(text) - len(text.lstrip(" "))) for text in accounts]
    columns = [
        *table.columns[:place],
        [text.lstrip(" ") for text in accounts],
        levels,
        *table.columns[place + 1 :],
    ]
    headings = (*table.headings[: place + 1], "Level", *table.headings[place + 1 :])
    return replace(table, headings=headings, columns=tuple(columns))


def plan_piped(tool: str, words: Sequence[str]) -> PipedQuery | None:
    """The query for one of the four; None where the answer is text.

    Raises:
        SlurmError: The value of an option is missing.
    """
    return {"sshare": _sshare, "sstat": _sstat, "sreport": _sreport, "sacctmgr": _sacctmgr}[tool](words)


def _asked(fields: Sequence[str], width: int) -> str:
    # Slurm leaves out a field that is asked for twice in the same words: so the widths differ.
    return ",".join(f"{field}%{width}" for field in fields)


def _fields(spec: str) -> list[str]:
    """The fields of a format, without their widths."""
    return [name for part in spec.split(",") if (name := part.partition("%")[0].strip())]


def _sshare(words: Sequence[str]) -> PipedQuery | None:
    options = scan(words, _SSHARE)
    found = options.found
    if "text" in found:
        return None
    spec = found.get("format", "")
    if not spec:
        spec = (_SHARES_LONG if "long" in found else _SHARES).format(",Partition" * ("partition" in found))
    fields = _fields(spec)
    argv = ("sshare", *options.rest)
    return PipedQuery(
        argv=(*argv, "--parsable", f"--format={_asked(fields, 255)},{_asked(fields, 254)}"),
        wide=(*argv, f"--format={_asked(fields, -WIDTH)}"),
        twice=len(fields),
        kinds=columns.SSHARE,
        environ={},
        is_tree=True,
    )


def _sstat(words: Sequence[str]) -> PipedQuery | None:
    """Steps have no text that anybody writes: sstat's own columns can be trusted."""
    options = scan(words, _SSTAT)
    if "text" in options.found:
        return None
    return PipedQuery(argv=("sstat", *options.rest, "--parsable"), kinds=columns.SSTAT, environ={})


def _sreport(words: Sequence[str]) -> PipedQuery | None:
    options = scan(words, _SREPORT)
    rest = [word for word in options.rest if not _FORMAT_WORD.fullmatch(word)]
    default = default_fields(rest, with_tres="tres" in options.found)
    if "text" in options.found or default is None:
        return None
    spec = ",".join(match[1] for word in options.rest if (match := _FORMAT_WORD.fullmatch(word)))
    fields = _fields(spec or default)
    argv = ("sreport", "--parsable", *rest)
    environ = {"SLURM_TIME_FORMAT": "%s"}
    if not fields:
        return PipedQuery(argv=argv, kinds=columns.SREPORT, environ=environ)
    return PipedQuery(
        argv=(*argv, f"format={_asked(fields, 255)},{_asked(fields, 254)}"),
        wide=("sreport", *rest, f"format={_asked(fields, -WIDTH)}"),
        twice=len(fields),
        kinds=columns.SREPORT,
        environ=environ,
    )


def _sacctmgr(words: Sequence[str]) -> PipedQuery | None:
    options = scan(words, _SACCTMGR)
    at = verb_place(options.rest)
    entity = full_name(options.rest[at + 1]) if at + 1 < len(options.rest) else ""
    others = options.rest[at + 2 :]
    if not entity or "text" in options.found or not is_question(options.rest):
        return None
    rest = [word for word in others if not _FORMAT_WORD.fullmatch(word)]
    spec = ",".join(match[1] for word in others if (match := _FORMAT_WORD.fullmatch(word)))
    asked = [word.lower() for word in rest] + ["withassoc"] * ("associations" in options.found)
    fields = _fields(spec or entity_fields(entity, asked))
    argv = ("sacctmgr", *options.rest[: at + 2], *rest)
    query = _listed(argv, fields, is_tree="tree" in asked)
    older = [field for field in fields if field not in LATER_FIELDS]
    return query if spec or older == fields else replace(query, older=_listed(argv, older))


def _listed(argv: Sequence[str], fields: Sequence[str], *, is_tree: bool = False) -> PipedQuery:
    return PipedQuery(
        argv=(*argv, "--parsable", f"format={_asked(fields, 255)},{_asked(fields, 254)}"),
        wide=(*argv, f"format={_asked(fields, -WIDTH)}"),
        twice=len(fields),
        kinds=columns.SACCTMGR,
        environ={"SLURM_TIME_FORMAT": "%s"},
        is_tree=is_tree,
    )
