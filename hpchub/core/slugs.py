"""Which names are safe, and names made from others."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection

# useradd(8) allows capitals and dots where the site does; 32 is the length utmp and Slurm hold.
_ACCOUNT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}", re.ASCII)

# Accounts that run the machine. sshd's own default admits a certificate that names root.
_SYSTEM_ACCOUNTS = frozenset(
    {"root", "daemon", "bin", "sys", "sync", "nobody", "slurm", "munge", "sshd", "mysql", "hpchub"}
)

SCHEDULER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}", re.ASCII)


def is_safe_account_name(name: str) -> bool:
    """Whether a name can be a person's account: 1 to 32 of letters, digits, `.`, `_`, `-`.

    It starts with a letter or `_`, does not end with `.`, holds no `..`, and is no system account.
    """
    return (
        _ACCOUNT_NAME.fullmatch(name) is not None
        and ".." not in name
        and not name.endswith(".")
        and name.lower() not in _SYSTEM_ACCOUNTS
    )


def caseless(account: str) -> str:
    """Under which name an account is compared: many directories take `Alice` and `alice` for one.

    Wherever something is held against an account (failures, second factors, revocations), or looked up to
    be taken from it, the names count without their capitals. What is given is given to the name as it is.
    """
    return account.lower()


def is_scheduler_name(name: str) -> bool:
    """Whether a text can be a partition, account, environment or cluster name."""
    return SCHEDULER_NAME.fullmatch(name) is not None


def job_name(server_name: str, server_id: str) -> str:
    """The name a server's job bears in the queue: `hpchub-ID` or `hpchub-<server name>-ID`.

    The start of its id makes the name its own, so that a job whose id was lost can be found again.
    JupyterHub holds server names to `[a-z0-9-]`; whatever else comes is replaced.
    """
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", server_name, flags=re.ASCII).strip("-")[:30]
    return "-".join(filter(None, ("hpchub", slug, server_id[:12])))


def successor_name(name: str, taken: Collection[str]) -> str:
    """A name for the server that follows `name`: of the same stem, the first that is not taken.

    The default server, whose name is empty, is followed by `next`, and that by the default one.
    """
    stem = re.sub(r"-[0-9]{1,3}$", "", name, flags=re.ASCII)
    first = ["", "next"] if stem in {"", "next"} else [stem]
    numbered = (f"{(stem or 'next')[:26]}-{number}" for number in itertools.count(2))
    return next(other for other in itertools.chain(first, numbered) if other != name and other not in taken)
