"""What the service account may ask of Slurm, and nothing else: the forced command of its certificates.

The signer writes `FORCED_COMMAND` into each such certificate, so no file of ours lies on the cluster.
sshd gives it to the account's login shell, which must read words as sh does. It reads these lines from
standard input:

    MARKER              printed first on both outputs: what stands before it is the login shell's own
    WORD CLUSTER ITEMS [NAMES]
                        what to ask, `-` or a cluster's name in Slurm, items joined by commas, and the
                        names of jobs to leave all others out, which are not printed
    SECONDS             after this it is ended; may be left out

Everything is held to a class of characters before it becomes one argument of squeue or sacct.
https://man.openbsd.org/ssh-keygen#force-command
"""

from __future__ import annotations

from collections.abc import Sequence

from hpchub.core.job import Query

# sshd kills no forced command, so one that hangs would stay when the bridge has given it up.
_LONGEST_S = 120

# One line, because csh ends quotes at a line's end, and without single quotes inside.
_SCRIPT = (
    "LC_ALL=C; export LC_ALL; read -r mark; read -r what cluster items names; read -r limit; "
    f'case "$limit" in ""|0*|*[!0-9]*) limit={_LONGEST_S};; esac; '
    'case "$mark" in ""|*[!a-z0-9-]*) exit 64;; esac; '
    'printf "%s\\n" "$mark"; printf "%s\\n" "$mark" >&2; exec </dev/null; '
    'case "$cluster" in ""|*[!A-Za-z0-9_.+-]*) exit 64;; -) set --;; *) set -- "--clusters=$cluster";; esac; '
    'case "$names" in *[!A-Za-z0-9_,-]*) exit 64;; ?*) set -- "$@" "--name=$names";; esac; '
    'case "$what:$items" in '
    "status:|history:|times:|status:*[!0-9,]*|history:*[!0-9,]*|times:*[!0-9,]*|"
    "pending:|pending:*[!A-Za-z0-9_.+,-]*) exit 64;; esac; "
    's=$(printf "\\037"); SLURM_TIME_FORMAT=%s; export SLURM_TIME_FORMAT; '
    'limited() { exec timeout "$limit" "$@"; }; '
    'case "$what" in '
    'status) limited squeue --noheader --states=all "$@" "--jobs=$items" "--format=%i$s%T$s%B$s%r";; '
    'history) limited sacct --allocations --noheader --parsable2 "--delimiter=$s" "$@" "--jobs=$items" '
    "--format=JobID,State,NodeList,ExitCode;; "
    'times) limited squeue --noheader --states=all "$@" "--jobs=$items" "--format=%i$s%T$s%S$s%e";; '
    'pending) limited squeue --noheader --states=PENDING "$@" "--partition=$items" "--format=%i$s%P$s%Q";; '
    "esac; exit 64"
)

FORCED_COMMAND = f"exec /bin/sh -c '{_SCRIPT}'"


def query_line(query: Query, items: Sequence[str], cluster: str = "", names: Sequence[str] = ()) -> bytes:
    """The second line of the forced command's input. Items and names are checked by whoever has them."""
    words = (query, cluster or "-", ",".join(items), ",".join(names))
    return (" ".join(words).rstrip() + "\n").encode("ascii")
