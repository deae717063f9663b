"""The table `[proof]` of `kind = "ldap"`: which directory, how people are found there, who may come in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hpchub.core.toml_table import Table

ACCOUNT = "{account}"

_HOST = r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::[1-9][0-9]{0,4})?"
_SERVER = re.compile(rf"ldaps?://{_HOST}|ldapi:///[A-Za-z0-9._/-]+", re.ASCII)
_DN = re.compile(r"[A-Za-z][A-Za-z0-9-]*=[^{}\x00-\x1f]+")
_ATTRIBUTE = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}", re.ASCII)
_MOST_SERVERS = 4  # with the longest timeout they must stay within the patience of whoever logs in


@dataclass(frozen=True, slots=True, kw_only=True)
class LdapSettings:
    """Either `user_dn`, or `search_base` with all that begins with `search_`.

    `user_dn` and `search_filter` hold `{account}`, in whose place the name comes that was typed.
    """

    servers: tuple[str, ...]
    ca_file: Path | None = None
    user_dn: str = ""
    search_base: str = ""
    search_filter: str = ""
    search_dn: str = ""
    search_password_file: Path | None = None
    account_attribute: str = "uid"
    user_filter: str = ""
    groups: tuple[str, ...] = ()
    min_uid_number: int = 1000
    timeout_s: int = 8


def read_ldap(table: Table, folder: Path) -> LdapSettings:
    """The settings in a table; faults are noted in it. Relative paths count from `folder`."""
    servers = table.texts("servers", _SERVER)
    if not 1 <= len(servers) <= _MOST_SERVERS:
        table.fault("servers", f"must name 1 to {_MOST_SERVERS} servers")
    user_dn = table.text("user_dn", "")
    if user_dn and not _DN.fullmatch(user_dn.replace(ACCOUNT, "x", 1)):
        table.fault("user_dn", f"{user_dn!r} is not a DN with {ACCOUNT} in it")
    if user_dn and ACCOUNT not in user_dn:
        table.fault("user_dn", f"must hold {ACCOUNT}: everybody would be the same person")
    if bool(user_dn) == table.has("search_base"):
        table.fault("user_dn", "write either user_dn or search_base")
    searching = not user_dn
    return LdapSettings(
        servers=servers,
        ca_file=_read_ca_file(table, folder, servers),
        user_dn=user_dn,
        search_base=table.text("search_base", pattern=_DN) if searching else "",
        search_filter=_read_filter(table, "search_filter", f"(uid={ACCOUNT})") if searching else "",
        search_dn=table.text("search_dn", pattern=_DN) if searching else "",
        search_password_file=folder / table.text("search_password_file") if searching else None,
        account_attribute=table.text("account_attribute", "uid", pattern=_ATTRIBUTE),
        user_filter=_read_filter(table, "user_filter", ""),
        groups=table.texts("groups", _DN),
        min_uid_number=table.integer("min_uid_number", 1000, low=1, high=2**32 - 1),
        timeout_s=table.integer("timeout_s", 8, low=1, high=12),
    )


def _read_ca_file(table: Table, folder: Path, servers: tuple[str, ...]) -> Path | None:
    """Needed unless the kernel itself says who the server is."""
    if servers and all(server.startswith("ldapi:") for server in servers) and not table.has("ca_file"):
        return None
    return folder / table.text("ca_file")


def _read_filter(table: Table, key: str, default: str) -> str:
    text = table.text(key, default)
    if text and not _is_filter(text):
        table.fault(key, f"{text!r} is not one filter in parentheses")
    if (ACCOUNT in text) != (ACCOUNT in default) or "{" in text.replace(ACCOUNT, ""):
        needed = "must hold" if default else "may not hold"
        table.fault(key, f"{needed} {ACCOUNT}, and no other braces")
    return text


def _is_filter(text: str) -> bool:
    """Whether the parentheses match, and one pair is around everything (RFC 4515 escapes others)."""
    depth = 0
    for place, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if depth < 0 or (depth == 0 and place < len(text) - 1):
            return False
    return depth == 0 and text.startswith("(")
