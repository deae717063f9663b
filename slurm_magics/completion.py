"""Tab completion in lines of magics: options, partitions, accounts, own jobs.

Options are those that the command's own --help names, so that they are right on any version of Slurm.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from slurm_magics.done import as_text
from slurm_magics.errors import SlurmError
from slurm_magics.help import COMMANDS, TABLES

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult

    from slurm_magics.session import Session

_log = logging.getLogger(__name__)

_FRESH_S = 30.0
# How long a person waits. What is said later is there for the next Tab: to give up a command sooner than any
# other would end the connection of %slurm connect.
_PATIENCE_S = 3.0
_MAGIC = re.compile(r"(?:^|=\s*|\()\s*%{1,2}(\w+)\s(.*)$", re.DOTALL)
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9-]+|-[A-Za-z](?![\w-]))")
_JOB = re.compile(r"[0-9]+(?:_[0-9]+)?", re.ASCII)

# Which options of which commands take what; those of `*` mean the same in all of them.
_VALUES: dict[str, dict[str, str]] = {
    "*": {"-p": "partitions", "--partition": "partitions", "--partitions": "partitions",
          "-A": "accounts", "--account": "accounts", "--accounts": "accounts",
          "-j": "jobs", "--jobs": "jobs", "--job": "jobs", "--jobid": "jobs"},
    "sacct": {"-r": "partitions", "-s": "states", "--state": "states"},
    "squeue": {"-t": "states", "--states": "states"},
    "scancel": {"-t": "states", "--state": "states"},
}  # fmt: skip
_STATES = [
    "CANCELLED", "COMPLETED", "COMPLETING", "FAILED", "NODE_FAIL", "PENDING", "PREEMPTED", "RUNNING",
    "SUSPENDED", "TIMEOUT",
]  # fmt: skip
# Words that are no options, by the words before them.
WORDS: dict[tuple[str, ...], str] = {
    ("scontrol",): "show hold release requeue suspend resume update top ping",
    ("scontrol", "show"): "job node partition reservation config hostnames step",
    ("sacctmgr",): "show list",
    (
        "sacctmgr",
        "show",
    ): "account association cluster event qos reservation resource transaction tres user wckey",
    ("sreport",): "cluster job reservation user",
    ("slurm",): "display fresh timeout templates connect disconnect",
    ("slurm", "display"): "frames text",
}
_JOBS_AFTER = {
    ("scancel",), ("sattach",), ("scontrol", "show", "job"), ("scontrol", "hold"), ("scontrol", "release"),
    ("scontrol", "requeue"), ("scontrol", "suspend"), ("scontrol", "resume"),
}  # fmt: skip
OWN_OPTIONS = {
    "sbatch": ("--as", "--dry-run", "--wait", "--template", "--no-fill", "--python"),
    **dict.fromkeys(("squeue", "sinfo", "sacct"), ("--plot",)),
}


@dataclass(slots=True)
class _Question:
    """What a command was asked, who waits for it, and what it has named."""

    asking: threading.Thread | None = None
    asked: float = field(default_factory=time.monotonic)
    found: list[str] = field(default_factory=list)

    @property
    def is_new(self) -> bool:
        """Whether it need not be asked again yet."""
        is_asking = self.asking is not None and self.asking.is_alive()
        return is_asking or time.monotonic() - self.asked < _FRESH_S


@dataclass(slots=True)
class Completion:
    """Completes for the session that is in use at that moment."""

    session: Callable[[], Session]
    _known: dict[tuple[str, str], _Question] = field(default_factory=dict)

    def complete(self, line: str) -> tuple[str, list[str]] | None:
        """The word that is being written and what it may become; None in a line without a magic of ours."""
        match = _MAGIC.search(line)
        if not match or match[1] not in {*TABLES, *COMMANDS, "sbatch", "slurm"}:
            return None
        tool, words = match[1], match[2].split()
        written = "" if not words or match[2][-1].isspace() else words.pop()
        option, has_value, value = written.partition("=")
        if written.startswith("-") and not has_value:
            return written, self._starting(written, self._options(tool))
        wanted = self._wanted(tool, option if has_value else (words[-1] if words else ""))
        if not wanted and not has_value:
            wanted, words_there = self._position(tool, words)
            if words_there:
                return written, self._starting(written, words_there)
        last = (value if has_value else written).rpartition(",")[2]
        return last, self._starting(last, self._values(wanted))

    @staticmethod
    def _starting(written: str, known: Sequence[str]) -> list[str]:
        return [word for word in known if word.startswith(written)]

    @staticmethod
    def _wanted(tool: str, option: str) -> str:
        return _VALUES.get(tool, {}).get(option) or _VALUES["*"].get(option, "")

    @staticmethod
    def _position(tool: str, words: Sequence[str]) -> tuple[str, list[str]]:
        """What a word that is no option may be: values of a kind, or words."""
        before = (tool, *(word for word in words if not word.startswith("-")))
        if before[:1] in _JOBS_AFTER or before[:2] in _JOBS_AFTER or before[:3] in _JOBS_AFTER:
            return "jobs", []
        if before in {("scontrol", "show", "node"), ("scontrol", "show", "partition")}:
            return f"{before[2]}s", []
        return "", WORDS.get(before, "").split()

    def _options(self, tool: str) -> list[str]:
        own = ["--as", *OWN_OPTIONS.get(tool, ())] if tool != "slurm" else []
        theirs = [] if tool == "slurm" else self._asked((tool, "--help"), _OPTION.findall)
        return sorted({*own, *theirs})

    def _values(self, kind: str) -> list[str]:
        user = self.session().machine.environ.get("USER", "")
        match kind:
            case "states":
                return _STATES
            case "partitions":
                return self._asked(("sinfo", "--noheader", "--format=%R"), str.split)
            case "nodes":
                return self._asked(("sinfo", "--noheader", "--Node", "--format=%N"), str.split)
            case "jobs":
                return self._asked(("squeue", "--noheader", "--me", "--array", "--format=%i"), _JOB.findall)
            case "accounts" if user:
                argv = (
                    "sacctmgr",
                    "--noheader",
                    "--parsable2",
                    "show",
                    "assoc",
                    f"user={user}",
                    "format=account",
                )
                return self._asked(argv, str.split)
        return []

    def _asked(self, argv: Sequence[str], read: Callable[[str], list[str]]) -> list[str]:
        """What a command names, each once; nothing where it does not answer at once."""
        session = self.session()
        key = (session.machine.name, " ".join(argv))
        question = self._known.get(key)
        if question is None or not question.is_new:
            question = self._known[key] = _Question()
            asking = threading.Thread(target=_ask, args=(session, argv, read, question), daemon=True)
            question.asking = asking
            asking.start()
            asking.join(_PATIENCE_S)
        return question.found


def _ask(
    session: Session, argv: Sequence[str], read: Callable[[str], list[str]], question: _Question
) -> None:
    try:
        done = session.machine.run(argv, limit_s=session.settings.timeout_s)
    except SlurmError as error:
        _log.info("magics.no_completion command=%s error=%s", argv[0], error.message)
        return
    text = "" if done.exit_code else as_text(done.stdout)
    question.found = sorted(set(read(text)))


def matcher(completion: Completion) -> Any:
    """For IPython's completer, which then asks nobody else."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    @context_matcher()  # type: ignore[untyped-decorator, unused-ignore]
    def slurm_matcher(context: CompletionContext) -> SimpleMatcherResult:
        found = completion.complete(context.line_with_cursor)
        if found is None:
            return {"completions": []}
        written, words = found
        completions = [SimpleCompletion(word, type="magic") for word in words]
        return {"completions": completions, "matched_fragment": written, "suppress": bool(words)}

    return slurm_matcher
