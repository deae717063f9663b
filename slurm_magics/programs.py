"""Where the options of srun, salloc and sbatch end, and those of the program that they run begin. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

# Options that take no value, or only one after `=`. Any other takes the next word.
_FLAGS = frozenset((
    "--bell", "--compress", "--contiguous", "--debugger-test", "--disable-status", "--dry-run", "--exact",
    "--exclusive", "--external-launcher", "--get-user-env", "--help", "--hold", "--ignore-pbs",
    "--interactive", "--kill-command", "--kill-on-bad-exit", "--label", "--multi-prog", "--nice",
    "--no-allocate", "--no-bell",
    "--no-fill", "--no-kill", "--no-requeue", "--no-shell", "--overcommit", "--overlap", "--oversubscribe",
    "--parsable", "--preserve-env", "--propagate", "--pty", "--python", "--quiet", "--quit-on-interrupt",
    "--reboot", "--requeue", "--resv-ports", "--share", "--spread-job", "--stepmgr", "--test-only",
    "--unbuffered", "--usage", "--use-min-nodes", "--verbose", "--version", "--wait", "--x11",
))  # fmt: skip
_SHORT_FLAGS = frozenset("EHhIKklOQsuVvWXZ")


def before_program(words: Sequence[str]) -> int:
    """How many words of srun, salloc or sbatch stand before the program or script that it runs.

    What follows is that one's own, whatever it looks like.
    """
    is_value = False
    for place, word in enumerate(words):
        if word == "--":
            return place
        if is_value:
            is_value = False
        elif not word.startswith("-") or word == "-":
            return place
        elif word.startswith("--"):
            is_value = "=" not in word and word not in _FLAGS
        else:
            is_value = word[-1] not in _SHORT_FLAGS and not any(one not in _SHORT_FLAGS for one in word[1:-1])
    return len(words)
