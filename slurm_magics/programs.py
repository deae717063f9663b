"""Where the options of srun, salloc and sbatch end, and those of the program that they run begin. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

# These make a job. Behind their own options stands what it runs, with options of its own.
SUBMITTERS = frozenset({"sbatch", "salloc", "srun"})
# Options that take no value, or only one after `=`: slurm_opt.c of 20.11 to 26.05. Any other takes the next
# word.
_FLAGS_OF_ALL = frozenset((
    "--consolidate-segments", "--contiguous", "--exclusive", "--help", "--hold", "--nice", "--no-kill",
    "--oom-kill-step", "--overcommit", "--oversubscribe", "--quiet", "--reboot", "--resv-ports", "--share",
    "--spread-job", "--spread-segments", "--stepmgr", "--usage", "--use-min-nodes", "--verbose", "--version",
))  # fmt: skip
_FLAGS = {
    "sbatch": _FLAGS_OF_ALL | {
        "--external", "--get-user-env", "--ignore-pbs", "--no-requeue", "--parsable", "--propagate",
        "--requeue", "--test-only", "--wait",
        "--dry-run", "--no-fill", "--python",  # ours
    },
    "salloc": _FLAGS_OF_ALL | {
        "--bell", "--get-user-env", "--immediate", "--kill-command", "--no-bell", "--no-shell", "--x11",
    },
    "srun": _FLAGS_OF_ALL | {
        "--async", "--bcast", "--compress", "--debugger-test", "--disable-status", "--exact",
        "--external-launcher", "--immediate", "--interactive", "--kill-on-bad-exit", "--label",
        "--multi-prog", "--no-allocate", "--overlap", "--parsable", "--preserve-env", "--propagate", "--pty",
        "--quit-on-interrupt", "--send-libs", "--test-only", "--unbuffered", "--wait-for-children", "--whole",
        "--x11",
    },
}  # fmt: skip
# What a flag begins with, too, is one of these: `--as` is ours, and of the others Slurm would refuse the flag
# as ambiguous.
_NO_FLAGS = ("--as", "--constraint", "--extra-node-info", "--partition", "--reservation", "--wait")
_SHORT_FLAGS = frozenset("EHhIKklOQsuVvXZ")
# Of those the ones that may have a value: the rest of their word.
_WITH_REST = frozenset("IKk")


def before_program(tool: str, words: Sequence[str]) -> int:
    """How many words of a line of srun, salloc or sbatch stand before the program or script that it runs.

    What follows is that one's own, whatever it looks like.
    """
    # A flag of sbatch, and a number of seconds to srun.
    short_flags = _SHORT_FLAGS | {"W"} if tool == "sbatch" else _SHORT_FLAGS
    is_value = False
    for place, word in enumerate(words):
        if word == "--":
            return place
        if is_value:
            is_value = False
        elif not word.startswith("-") or word == "-":
            return place
        elif word.startswith("--"):
            is_value = "=" not in word and not _is_flag(tool, word)
        else:
            is_value = _takes_next(word, short_flags)
    return len(words)


def _is_flag(tool: str, word: str) -> bool:
    """Whether a long option takes no value. It may be shortened, as far as only one begins so."""
    if word in _FLAGS[tool]:
        return True
    return any(flag.startswith(word) for flag in _FLAGS[tool]) and not any(
        other.startswith(word) for other in _NO_FLAGS
    )


def _takes_next(word: str, flags: frozenset[str]) -> bool:
    """Whether short options, written as one word, end with one whose value is the next word."""
    for place, one in enumerate(word[1:], start=2):
        if one in _WITH_REST:
            return False
        if one not in flags:
            return place == len(word)
    return False
