"""Which other accounts of this machine may reach a socket: one group by its mode, and user ids by our check.

Each account's uid is looked up when the settings are read.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from pathlib import Path

from hpchub.core.toml_table import Table

_ACCOUNT = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,31}|[0-9]{1,10}", re.ASCII)


def read_group(table: Table, key: str = "group") -> int | None:
    """The id of the group in a setting, a name or number; None where it is left out, or is a fault."""
    if not table.has(key):
        return None
    name = table.text(key)
    if name.isdecimal() and name.isascii():
        return int(name)
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        table.fault(key, f"this machine has no group {name!r}")
        return None


def read_uids(table: Table, key: str) -> frozenset[int]:
    """The ids of the accounts in a setting, names or numbers. One that is not there is a fault."""
    found = set()
    for name in table.texts(key, _ACCOUNT):
        try:
            found.add(int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid)
        except KeyError:
            table.fault(key, f"this machine has no account {name!r}")
    return frozenset(found)


def share_with_group(path: Path, group: int | None) -> None:
    """Let a group reach a socket of ours, if there is to be one. OSError where that cannot be."""
    if group is None:
        return
    if path.stat().st_gid != group:  # a unit that is locked down may not call chown(2)
        os.chown(path, -1, group)
    path.chmod(0o660)
