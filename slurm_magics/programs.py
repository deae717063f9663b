"""Where the options of srun, salloc and sbatch end, and those of the program that they run begin. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

# These make a job. Behind their own options stands what it runs, with options of its own.
SUBMITTERS = frozenset({"sbatch", "salloc", "srun"})
# Options that take no value, or only one after `=`. Any other takes the next word.
_FLAGS = frozenset((
    "--bcast", "--bell", "--compress", "--contiguous", "--debugger-test", "--disable-status", "--dry-run",
    "--exact", "--exclusive", "--external-launcher", "--get-user-env", "--help", "--hold", "--ignore-pbs",
    "--immediate", "--interactive", "--kill-command", "--kill-on-bad-exit", "--label", "--multi-prog",
    "--nice", "--no-allocate", "--no-bell", "--no-fill", "--no-kill", "--no-requeue", "--no-shell",
    "--overcommit", "--overlap", "--oversubscribe", "--parsable", "--preserve-env", "--propagate", "--pty",
    "--python", "--quiet", "--quit-on-interrupt", "--reboot", "--requeue", "--resv-ports", "--send-libs",
    "--share", "--spread-job", "--stepmgr", "--test-only", "--unbuffered", "--usage", "--use-min-nodes",
    "--verbose", "--version", "--whole", "--x11",
))  # fmt: skip
_SHORT_FLAGS = frozenset("EHhIKklOQsuVvXZ")
# Of those the ones that may have a value: the rest of their word.
_WITH_REST = frozenset("IKk")
# A flag of sbatch, and a number of seconds to srun.
_WAIT = frozenset({"--wait", "W"})


def before_program(tool: str, words: Sequence[str]) -> int:
    """How many words of a line of srun, salloc or sbatch stand before the program or script that it runs.

    What follows is that one's own, whatever it looks like.
    """
    flags = _FLAGS | _SHORT_FLAGS | (_WAIT if tool == "sbatch" else frozenset())
    is_value = False
    for place, word in enumerate(words):
        if word == "--":
            return place
        if is_value:
            is_value = False
        elif not word.startswith("-") or word == "-":
            return place
        elif word.startswith("--"):
            is_value = "=" not in word and word not in flags
        else:
            is_value = _takes_next(word, flags)
    return len(words)


def _takes_next(word: str, flags: frozenset[str]) -> bool:
    """Whether short options, written as one word, end with one whose value is the next word."""
    for place, one in enumerate(word[1:], start=2):
        if one in _WITH_REST:
            return False
        if one not in flags:
            return place == len(word)
    return False
