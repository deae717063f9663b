"""Which command answers `%squeue`, `%sinfo` or `%sacct`, and how its answer becomes a frame. No I/O.

Those of the other tables are in `priorities` and `accounting`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo

from slurm_magics import columns
from slurm_magics.accounting import PipedQuery, plan_piped
from slurm_magics.delimited import Delimited, Layout, Marked
from slurm_magics.errors import SlurmError
from slurm_magics.formats import long_format, short_format, short_letters
from slurm_magics.options import HELP, JSON, NO_HEADINGS, Syntax, scan
from slurm_magics.priorities import PriorityQuery, plan_priorities
from slurm_magics.reading import Reading
from slurm_magics.values import Kind

_SQUEUE = Syntax(
    with_value="AijLMnOopqRStuUw",
    known={
        **HELP, **JSON, **NO_HEADINGS, "-h": "noheader", "-o": "format=", "--format": "format=",
        "-O": "long_format=", "--Format": "long_format=", "-i": "iterate=", "--iterate": "iterate=",
        "-l": "long", "--long": "long", "-s": "steps", "--steps": "steps", "--start": "start",
    },
    kept=frozenset({"text", "steps"}),
)  # fmt: skip
_SINFO = Syntax(
    with_value="iMnOopSt",
    known={
        **HELP, **JSON, **NO_HEADINGS, "-h": "noheader", "-o": "format=", "--format": "format=",
        "-O": "long_format=", "--Format": "long_format=", "-i": "iterate=", "--iterate": "iterate=",
        "-l": "long", "--long": "long", "-N": "nodes", "--Node": "nodes", "-R": "reasons",
        "--list-reasons": "reasons", "-s": "summary", "--summarize": "summary", "-T": "text",
        "--reservation": "text",
    },
    kept=frozenset({"text", "nodes", "reasons"}),
)  # fmt: skip
_SACCT = Syntax(
    with_value="AEFfgijKkMNoqrSsuWwx",
    known={
        **HELP, **JSON, **NO_HEADINGS, "-h": "text", "--helpformat": "text", "-e": "text", "-c": "text",
        "--completion": "text", "-B": "text", "--batch-script": "text", "--env-vars": "text",
        "-n": "noheader", "-o": "format=", "--format": "format=",
        "-p": "noheader", "--parsable": "noheader", "-P": "noheader", "--parsable2": "noheader",
        "--delimiter": "delimiter=", "-l": "long", "--long": "long", "-b": "brief", "--brief": "brief",
    },
    kept=frozenset({"text", "long", "brief"}),
)  # fmt: skip

_SQUEUE_FIELDS = "iPjuTMlDCmVSNr"
_SQUEUE_LONG = "iPjuaqTMlLDCmQVSeNr"
_SQUEUE_STEPS = "iPjuMN"
_SQUEUE_START = "iPjuTSDYr"
# What users write themselves, or may: squeue(1), and what Slurm does not check when a job is submitted.
_USER_LETTERS = frozenset("jkoZwfEvWbnxXs")
_SQUEUE_ALL = "aAbBcCdDeEfFghHiIjJkKlLmMnNoOpPqQrRSStTuUvVwWxyYzZ"
_SINFO_ALL = "aAbBcCdDeEfFgGhHIlLmMnNoOpPrRsStTuUvVwXYzZ"

_SACCT_FIELDS = "JobID,JobName,Partition,Account,AllocCPUS,State,ExitCode,Submit,Start,End,Elapsed"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableQuery:
    """A command and the way to read it. `environ` overrides the environment; None takes a name out of it."""

    argv: tuple[str, ...]
    environ: Mapping[str, str | None]
    kinds: Mapping[str, Kind]
    mark: str = field(repr=False)
    is_marked: bool = False
    user_text: int | None = None
    guarded: bool = True
    parts: tuple[str, ...] = ()

    def reading(self, zone: tzinfo) -> Reading:
        """What makes a frame of the answer as it comes."""
        tool = self.argv[0]
        layout: Layout = (
            Marked(tool, self.mark, self.user_text)
            if self.is_marked
            else Delimited(tool, self.mark, guards=int(self.guarded))
        )
        return Reading(layout, self.kinds, zone, parts=self.parts)


Query = TableQuery | PriorityQuery | PipedQuery


def plan(tool: str, words: Sequence[str], environ: Mapping[str, str], mark: str) -> Query | None:
    """The query for a table; None where the answer is text (`--help`, `--json`, what changes something).

    Args:
        tool: squeue, sinfo, sacct, sprio, sshare, sstat, sreport or sacctmgr.
        words: The user's own, as on the command line.
        environ: For SQUEUE_FORMAT and the like.
        mark: From `new_mark`, fresh.

    Raises:
        SlurmError: An option cannot be used in a notebook, or its value is missing.
    """
    match tool:
        case "squeue":
            return _squeue(words, environ, mark)
        case "sinfo":
            return _sinfo(words, environ, mark)
        case "sacct":
            return _sacct(words, environ, mark)
        case "sprio":
            return plan_priorities(words, environ, mark)
        case _:
            return plan_piped(tool, words)


def _squeue(words: Sequence[str], environ: Mapping[str, str], mark: str) -> TableQuery | None:
    options = scan(words, _SQUEUE)
    found = options.found
    if "text" in found:
        return None
    _refuse_repetition("squeue", found)
    spec, long_spec = _formats(found, environ, "SQUEUE_FORMAT", "SQUEUE_FORMAT2")
    # Others can read our arguments, but not our environment: there the mark stays unknown.
    variables: dict[str, str | None] = {"SLURM_TIME_FORMAT": "%s", "SLURM_BITSTR_LEN": "0"}
    # --start is short for this and a format, which would come before the variable's.
    begins = ("--states=PENDING", "--sort=S") if "start" in found else ()
    argv = ("squeue", *begins, *options.rest)
    if long_spec:
        variables |= {"SQUEUE_FORMAT": None, "SQUEUE_FORMAT2": long_format(long_spec, mark, guard="jobid")}
        return TableQuery(argv=argv, environ=variables, kinds=columns.SQUEUE, mark=mark)
    letters = short_letters(spec, _SQUEUE_ALL) if spec else _SQUEUE_FIELDS
    if not spec and "steps" in found:
        letters = _SQUEUE_STEPS
    elif not spec and ("start" in found or "long" in found):
        letters = _SQUEUE_START if "start" in found else _SQUEUE_LONG
    users = [place for place, letter in enumerate(letters) if letter in _USER_LETTERS]
    is_marked = len(users) <= 1
    format_text = short_format(letters, mark, is_marked)
    variables |= {"SQUEUE_FORMAT2": None, "SQUEUE_FORMAT": format_text}
    if "steps" in found:  # for steps squeue reads no variable
        argv = (*argv, f"--format={format_text}")
    return TableQuery(
        argv=argv,
        environ=variables,
        kinds=columns.SQUEUE,
        mark=mark,
        is_marked=is_marked,
        user_text=users[0] if users else None,
        parts=() if spec or "steps" in found else ("JOB", "TASK", "HET"),
    )


def _sinfo(words: Sequence[str], environ: Mapping[str, str], mark: str) -> TableQuery | None:
    options = scan(words, _SINFO)
    found = options.found
    if "text" in found:
        return None
    _refuse_repetition("sinfo", found)
    spec, long_spec = _formats(found, environ, "SINFO_FORMAT", "")
    variables: dict[str, str | None] = {"SLURM_TIME_FORMAT": "%s", "SINFO_FORMAT": None}
    if long_spec:
        # The cluster is the same in every row, so that the guard does not change how nodes are grouped.
        argv = ("sinfo", *options.rest, f"--Format={long_format(long_spec, mark, guard='cluster')}")
        return TableQuery(argv=argv, environ=variables, kinds=columns.SINFO, mark=mark)
    letters = short_letters(spec, _SINFO_ALL) if spec else _sinfo_letters(found)
    return TableQuery(
        argv=("sinfo", *options.rest, f"--format={short_format(letters, mark, is_marked=True)}"),
        environ=variables,
        kinds=columns.SINFO,
        mark=mark,
        is_marked=True,
        user_text=letters.index("E") if "E" in letters else None,
    )


def _sinfo_letters(found: Mapping[str, str]) -> str:
    """The fields that sinfo itself shows with these options: sinfo(1)."""
    is_long = "long" in found
    if "reasons" in found:
        return "EUHtN" if is_long else "EuHN"
    if "nodes" in found:
        return "NDPTczmdwfE" if is_long else "NDPT"
    if "summary" in found:
        return "PalFN"
    return "PalsrhgDTN" if is_long else "PalDTN"


def _sacct(words: Sequence[str], environ: Mapping[str, str], mark: str) -> TableQuery | None:
    options = scan(words, _SACCT)
    found = options.found
    if "text" in found:
        return None
    variables: dict[str, str | None] = {"SLURM_TIME_FORMAT": "%s", "SACCT_FORMAT": None}
    argv = ("sacct", *options.rest, "--parsable", f"--delimiter={mark}")
    asked = found.get("format") or environ.get("SACCT_FORMAT", "")
    if not asked and found.keys() & {"long", "brief"}:  # these begin with JobID, which serves as a guard
        return TableQuery(argv=argv, environ=variables, kinds=columns.SACCT, mark=mark, guarded=False)
    fields = re.sub(r"%-?[0-9]*", "", asked) if asked else _SACCT_FIELDS
    return TableQuery(
        argv=(*argv, f"--format=JobIDRaw,{fields}"),
        environ=variables,
        kinds=columns.SACCT,
        mark=mark,
        parts=() if asked else ("Job", "Task", "Het", "Step"),
    )


def _refuse_repetition(tool: str, found: Mapping[str, str]) -> None:
    if "iterate" in found:
        raise SlurmError(
            f"%{tool} answers once: --iterate would never end.", "Run the cell again for the newest answer."
        )


def _formats(found: Mapping[str, str], environ: Mapping[str, str], short: str, long: str) -> tuple[str, str]:
    """The user's own format, short or long: from the options, else from the environment."""
    if "long_format" in found or "format" in found:
        return found.get("format", ""), found.get("long_format", "")
    return environ.get(short, ""), environ.get(long, "") if long else ""
